import pytest

from nndet_psma.cli.umbrella import main
from nndet_psma.core.errors import UserError
from nndet_psma.hosts.nndetection.hook import place


def test_put_in_taken_out_and_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(place, "site_folder", lambda: tmp_path)
    said = []
    for action in ("status", "install", "status", "remove", "remove"):
        assert main(["nndet-hook", action]) == 0
        said.append(capsys.readouterr().out.strip().rpartition(": ")[2])
    assert said == ["not installed", "installed", "installed", "not installed", "not installed"]
    assert list(tmp_path.iterdir()) == []


def test_an_older_hook_is_renewed(tmp_path):
    place.install(tmp_path)
    module = tmp_path / "nndet_psma_hook.py"
    module.write_text('"""Hook of nndet_psma: an old one."""')
    assert place.state(tmp_path) == place.OUTDATED
    place.install(tmp_path)
    assert place.state(tmp_path) == place.INSTALLED
    module.unlink()
    assert place.state(tmp_path) == place.OUTDATED


def test_a_file_of_someone_else_is_kept(tmp_path):
    (tmp_path / "nndet_psma_hook.py").write_text("mine = 1")
    for change in (place.install, place.remove):
        with pytest.raises(UserError, match="was not written by this package"):
            change(tmp_path)
    assert (tmp_path / "nndet_psma_hook.py").read_text() == "mine = 1"

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.hosts.nndetection import availability
from nndet_psma.hosts.nndetection.availability import require_nndetection


def make_package(root, *, conf=True, scripts=True):
    (root / "nndet" / "conf").mkdir(parents=True)
    (root / "nndet" / "__init__.py").touch()
    (root / "scripts").mkdir()
    if conf:
        (root / "nndet" / "conf" / "config.yaml").touch()
    if scripts:
        (root / "scripts" / "train.py").touch()


def test_not_installed_tells_what_to_do(monkeypatch):
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed") as caught:
        require_nndetection()
    assert "-o host=embedded" in str(caught.value)
    assert "github.com/MIC-DKFZ/nnDetection" in str(caught.value)
    assert "pip install -e" in str(caught.value)
    assert "PYTHONPATH" in str(caught.value)


@pytest.mark.parametrize("missing", ["conf", "scripts"])
def test_a_plain_install_is_told_apart(without_nndetection, tmp_path, missing):
    make_package(tmp_path, **{missing: False})
    without_nndetection.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"without its configuration or its scripts.*pip install -e"):
        require_nndetection()


def test_an_editable_install_is_found_without_being_imported(without_nndetection, tmp_path):
    make_package(tmp_path)
    (tmp_path / "nndet" / "__init__.py").write_text("raise RuntimeError('imported')")
    without_nndetection.syspath_prepend(tmp_path)
    assert require_nndetection() == tmp_path


def test_the_genuine_package_is_whole(nndetection):
    assert (nndetection / "scripts" / "preprocess.py").is_file()

"""How every command must fail when the user made a mistake."""

from __future__ import annotations


def fails(capsys, main, argv, *expected):
    """The command's one line on standard error; it must hold every text of ``expected``."""
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.endswith("\n")
    assert error.count("\n") == 1
    assert ": error: " in error
    assert "Traceback" not in error
    for text in expected:
        assert text in error
    return error

"""The check of an installed wheel passes where momos works, the command included."""

import pytest
import smoke


def test_the_check_of_a_wheel_passes_here(capsys: pytest.CaptureFixture[str]) -> None:
    smoke.main()
    assert "works: " in capsys.readouterr().out

"""What a command prints for a person."""

from __future__ import annotations

import pytest

from medtrans.cli.console import Output


def shown(capsys: pytest.CaptureFixture[str], rows: list[dict[str, object]]) -> list[str]:
    Output(as_json=False).result({"volumes": rows})
    return capsys.readouterr().out.splitlines()[1:]


@pytest.mark.parametrize("failed_first", [False, True])
def test_a_failure_has_its_reason_in_the_table_wherever_it_stands(
    capsys: pytest.CaptureFixture[str], failed_first: bool
) -> None:
    rows: list[dict[str, object]] = [
        {"input": "a", "output": "x", "slices": 3},
        {"input": "b", "output": None, "error": "b: it is damaged."},
    ]
    lines = shown(capsys, rows[::-1] if failed_first else rows)
    [failed] = [line for line in lines if line.split()[0] == "b"]
    assert "b: it is damaged." in failed
    assert "None" not in failed
    [done] = [line for line in lines if line.split()[0] == "a"]
    assert done.split() == ["a", "x", "3"]

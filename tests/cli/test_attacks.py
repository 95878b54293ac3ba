from helpers import Command


def test_attacks_lists_the_registry(command: Command) -> None:
    done = command("attacks", "--json")
    assert done.code == 0
    assert {"standard", "weight-noise", "pst", "recovery"} <= {attack["name"] for attack in done.data["attacks"]}
    assert all(attack["about"] and attack["needs"] and attack["source"] for attack in done.data["attacks"])
    shown = command("attacks").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "recovery" in shown

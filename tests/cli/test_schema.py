from helpers import Command


def test_an_unknown_schema_is_refused_with_the_known_names(command: Command) -> None:
    done = command("schema", "certificat")
    assert done.code == 2
    assert "certificate" in done.stderr

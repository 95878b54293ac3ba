from helpers import Command


def test_the_schema_command_names_what_it_knows(command: Command) -> None:
    done = command("schema", "certificat")
    assert done.code == 2
    assert "certificate" in done.stderr

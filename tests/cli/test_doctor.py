from helpers import Command


def test_doctor_is_ready(command: Command) -> None:
    done = command("doctor", "--json")
    assert done.code == 0
    assert done.data["ready"] is True
    assert {"torch", "torchvision", "device", "memory", "auto_surrogate"} <= set(done.data)
    assert max(map(len, command("doctor").stdout.splitlines())) <= 80

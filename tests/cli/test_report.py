from helpers import Command, RecordedRelease


def test_a_release_without_evidence_gets_a_page(evidence: RecordedRelease, command: Command) -> None:
    (evidence.vault / "certificate.json").unlink()
    for path in (evidence.vault / "audit").iterdir():
        path.unlink()
    done = command("report", evidence.out)
    assert done.code == 0
    text = (evidence.vault / "report.html").read_text()
    assert "No certificate is recorded" in text
    assert "No attack is recorded" in text
    assert "No verdict" in text
    assert (evidence.vault / "report.html").stat().st_mode & 0o077 == 0


def test_changed_files_get_no_report(evidence: RecordedRelease, command: Command) -> None:
    (evidence.out / "cat/000.png").write_bytes(b"x")
    done = command("report", evidence.out)
    assert done.code == 3
    assert "pueprotect verify" in done.stderr

"""Attempts to pass a policy without protection; none may. The evidence is written with the product's own records."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import Command

from pueprotect.audit.suites import SUITES
from pueprotect.certify import bounds
from pueprotect.release.audits import CLEAN_LINE, AttackKey, AttackResult, AuditRecord
from pueprotect.release.certificates import Certificate, NoisyAccuracy, Point, RecipeFigures
from pueprotect.release.digests import data_digest, sha256_of
from pueprotect.release.records import ManifestRow
from pueprotect.release.vault import CERTIFICATE, Vault

POLICY = """version: 1
certify: {eta: 0.03, max_learnability: 0.45}
audit: {suite: quick, max_accuracy: 0.45, max_recovered: 0.5}
images: {min_coverage: 1.0}
"""
CHANCE, IMAGES, SEED = 0.1, 1000, "sha256:" + "7" * 64


def figures(
    bound: float, *, q: float = 0.9, sigma: float = 0.05, draws: int = 1000, alpha: float = 0.01,
    etas: tuple[float, ...] = (0.0, 0.03),
) -> dict[str, Any]:  # fmt: skip
    """The figures around one surrogate whose bound is the same at every radius."""
    points = []
    for eta in etas:
        tail = bounds.shifted_tail(q, eta, sigma)
        rank = bounds.order_statistic_rank(draws, tail, alpha)
        found = bound if rank else None
        points.append(Point(
            eta=eta, q_shifted=bounds.shifted_quantile(q, eta, sigma), rank=rank, certified_learnability=found,
            draws_needed=bounds.draws_needed(tail, alpha), population=found,
        ))  # fmt: skip
    noisy = NoisyAccuracy(mean=bound, median=bound, max=bound, quantile=bound)
    made = RecipeFigures(
        recipe="plain", draws=draws, surrogate_clean_accuracy=bound, noisy_accuracy=noisy, curve=points
    )
    return dict(made)


def certificate(digest: str, bound: float = 0.4, baseline: float | None = 0.8, **facts: Any) -> Certificate:
    """A certificate as `certify` writes it; `facts` replace its fields."""
    about = {"q": 0.9, "sigma": 0.05, "alpha": 0.01} | {k: facts.pop(k) for k in ("q", "sigma", "alpha") if k in facts}
    drawn = about | {name: facts.pop(name) for name in ("draws", "etas") if name in facts}
    found = figures(bound, **drawn)
    usual = {
        "joint": False, "holdout_images": IMAGES, "classes": 10, "chance": CHANCE, "max_eta": 0.06, "flags": [],
        "recipes": {"plain": RecipeFigures(**found)}, "seconds": 1.0, "data_digest": digest,
        "baseline": None if baseline is None else RecipeFigures(**figures(baseline, **drawn)),
        "surrogate_recipe": "worst", "epochs": 15.0, "looks": 1,
    }  # fmt: skip
    return Certificate(**(found | about | usual | facts))


def record(digest: str, attack: str, accuracy: float | None = 0.2, seed: int = 0) -> AuditRecord:
    key = AttackKey(attack=attack, arch="cnn", epochs=15, seed=seed, data_digest=digest, test_digest=SEED)
    result = AttackResult(
        attack="standard" if attack == CLEAN_LINE else attack, arch="cnn", accuracy=accuracy, best_accuracy=accuracy,
        epochs=15, seconds=1.0, details={"train_accuracy": 0.95},
    )  # fmt: skip
    return AuditRecord(key=key, result=result, chance=CHANCE, test_images=IMAGES)


@dataclass
class Attempt:
    """A release with good evidence, a policy and options of the command; a row of the table bends them."""

    place: Path
    policy: str = POLICY
    words: tuple[object, ...] = ()
    content: bytes = b""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        rows = []
        for number in range(4):
            path = self.out / f"cat/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % number + self.content)
            rows.append(ManifestRow(
                path=f"cat/{number}.png", class_name="cat", split="train", source_path=path.name,
                source_sha256="0" * 64, released_sha256=sha256_of(path), linf=8, ssim=0.9,
            ))  # fmt: skip
        self.digest = data_digest({row.path: row.released_sha256 for row in rows})
        self.store = Vault.create(self.vault)
        self.store.write_manifest(rows)
        self.store.seal({"method": "pue", "classes": ["cat"], "data_digest": self.digest})
        self.certified()
        for attack in SUITES["quick"]:
            self.recorded(record(self.digest, attack))
        self.recorded(record(self.digest, CLEAN_LINE, 0.9))

    @property
    def out(self) -> Path:
        return self.place / "out"

    @property
    def vault(self) -> Path:
        return self.place / "out.vault"

    def certified(self, **facts: Any) -> None:
        self.store.write_json(CERTIFICATE, certificate(self.digest, **facts).as_json())

    def recorded(self, made: AuditRecord, folder: str = "audit") -> None:
        self.store.write_json(f"{folder}/{made.key.attack}-{made.key.arch}.json", made.as_json())

    def edit(self, name: str, change: Callable[[Any], object]) -> None:
        """Change a file by hand."""
        data = json.loads((self.vault / name).read_text())
        change(data)
        (self.vault / name).write_text(json.dumps(data))

    def result(self, attack: str, **figures: Any) -> None:
        self.edit(f"audit/{attack}-cnn.json", lambda data: data["result"].update(figures))

    def every(self, change: Callable[[Any], object]) -> None:
        for path in (self.vault / "audit").glob("*.json"):
            self.edit(f"audit/{path.name}", change)

    def other(self, content: bytes = b"other") -> "Attempt":
        """Another release, just as good."""
        return Attempt(self.place / "other", content=content)

    def says(self, old: str, new: str) -> None:
        assert old in self.policy
        self.policy = self.policy.replace(old, new)

    def check(self, command: Command) -> Any:
        path = self.place / "policy.yaml"
        path.write_text(self.policy)
        return command("check", self.out, "--policy", path, *self.words)

    def earlier(self, made: "Attempt", command: Command) -> None:
        """Compare with an earlier check of `made` that failed every limit on accuracy."""
        made.every(lambda data: data["result"].update(accuracy=0.85))
        words = ("--report", f"json={self.place / 'before.json'}")
        made.words = words
        assert made.check(command).code == 1
        self.every(lambda data: data["result"].update(accuracy=0.85))
        self.words = ("--baseline", self.place / "before.json")


def stale(made: Attempt) -> None:
    (made.out / "cat/0.png").write_bytes(b"unprotected")


def added(made: Attempt) -> None:
    (made.out / "cat/new.png").write_bytes(b"unprotected")


def others_certificate(made: Attempt) -> None:
    shutil.copy(made.other().vault / CERTIFICATE, made.vault)


def others_audit(made: Attempt) -> None:
    shutil.copytree(made.other().vault / "audit", made.vault / "audit", dirs_exist_ok=True)


def foreign_vault(made: Attempt) -> None:
    made.words = ("--vault", made.other().vault)


def forged(change: Callable[[Any], object]) -> Callable[[Attempt], None]:
    return lambda made: made.edit(CERTIFICATE, change)


def falling(data: Any) -> None:
    data["curve"][0].update(certified_learnability=0.44, population=0.44)


def mislabelled(made: Attempt) -> None:
    """Nothing is learnt, from clean images either."""
    made.every(lambda data: data["result"].update(accuracy=0.11))
    made.result(CLEAN_LINE, accuracy=0.15)


def renamed(made: Attempt) -> None:
    """The weaker attack twice, once under the name of the stronger."""
    shutil.copy(made.vault / "audit/standard-cnn.json", made.vault / "audit/pst-cnn.json")


def renamed_key(made: Attempt) -> None:
    renamed(made)
    made.edit("audit/pst-cnn.json", lambda data: data["key"].update(attack="pst"))


def twice(made: Attempt) -> None:
    """Two files, one seed."""
    made.says("quick,", "quick, min_seeds: 2,")
    for path in (made.vault / "audit").glob("*-cnn.json"):
        (made.vault / "audit/seed-1").mkdir(exist_ok=True)
        shutil.copy(path, made.vault / "audit/seed-1")


def without(name: str) -> Callable[[Attempt], None]:
    return lambda made: (made.vault / f"audit/{name}-cnn.json").unlink()


def older(made: Attempt) -> None:
    made.certified(surrogate_recipe=None, epochs=None, looks=None)


def diverged_alone(made: Attempt) -> None:
    made.says(", max_accuracy: 0.45, max_recovered: 0.5", "")
    made.result("pst", accuracy=None, best_accuracy=None, flags=["diverged"])


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join(lines) + "\n"


def says(old: str, new: str) -> Callable[[Attempt], None]:
    return lambda made: made.says(old, new)


def policy(text: str) -> Callable[[Attempt], None]:
    return lambda made: setattr(made, "policy", text)


WAIVER = "waivers: [{rule: audit.pst, reason: a test, expires: 2026-01-31}]\n"
OF_PASSING = "unprotected images would pass too"
# What is tried, how the evidence is bent, the exit code, and a part of one line of the output.
TABLE: list[tuple[str, Callable[[Attempt], object], int, str]] = [
    ("short epochs", lambda a: a.certified(epochs=0.05), 3, "epochs of the surrogates: 0.05, at least 15 wanted"),
    ("one recipe", lambda a: a.certified(surrogate_recipe="plain"), 3, "recipe plain, the policy asks for worst"),
    ("pst is not among the worst", says("{eta", "{recipe: pst, eta"), 3, "recipe worst, the policy asks for pst"),
    ("large sigma", lambda a: a.certified(sigma=5.0, bound=0.1, baseline=0.12), 3, OF_PASSING),
    ("sigma above the policy's", says("{eta", "{max_sigma: 0.04, eta"), 3, "sigma of the weight noise: 0.05"),
    ("tiny baseline", lambda a: a.certified(baseline=0.27, bound=0.2), 3, OF_PASSING),
    ("baseline below the limit", lambda a: a.certified(baseline=0.44), 3, "is 44.0%, not above 45.0%"),
    ("baseline below the policy's", says("{eta", "{min_baseline: 0.81, eta"), 1, "clean baseline's bound is 80.0%"),
    ("no baseline", lambda a: a.certified(baseline=None), 3, "has no clean baseline"),
    ("limit that clean images pass", says("y: 0.45}", "y: 0.9}"), 3, OF_PASSING),
    ("abstention", lambda a: a.certified(draws=30), 3, "at eta 0.03 is not known; run: pueprotect certify"),
    ("few draws", says("{eta", "{min_draws: 1001, eta"), 3, "draws behind the bound: 1000, at least 1001"),
    ("larger alpha", lambda a: a.certified(alpha=0.4), 3, "may fail with probability 0.4"),
    ("smaller q", lambda a: a.certified(q=0.5), 3, "covers q 0.5 of the classifiers, the policy asks for 0.9"),
    ("smaller eta", lambda a: a.certified(etas=(0.0, 0.02)), 3, "does not reach eta 0.03"),
    ("radius in other units", lambda a: a.certified(relative=True), 3, "radii are relative to the weights"),
    ("no radius at all", lambda a: (a.certified(etas=(0.0,)), a.says("eta: 0.03, ", "")), 3,
     "largest radius of the certificate: 0, at least 0.01"),
    ("too many looks", lambda a: a.certified(looks=11), 3, "may be luck): 11, the limit 10"),
    ("older certificate", older, 3, "certify.max_looks"),
    ("flag: test images overlap", lambda a: a.certified(flags=["test-overlap"]), 3, "certify.flags.test-overlap"),
    ("flag: few images", lambda a: a.certified(flags=["small-holdout"], holdout_images=20), 3, "small-holdout"),
    ("flag: unfitted", lambda a: a.certified(flags=["surrogate-unfitted"]), 3, "--baseline --epochs 30"),
    ("flag: at chance", lambda a: a.certified(flags=["bound-at-chance"]), 3, "--baseline --test CLEAN_IMAGES"),
    ("flag: weak baseline", lambda a: a.certified(flags=["weak-baseline"]), 3, "--baseline --sigma auto"),
    ("flag: answers lost", lambda a: a.certified(flags=["unanswered-draws"]), 3, "unanswered-draws"),
    ("few images of the policy", says("{eta", "{min_test_images: 1001, eta"), 3, "clean images: 1000, at least 1001"),
    ("mislabelled test images", mislabelled, 3,
     "audit.flags.weak-clean-line"),
    ("clean images learnt as badly", lambda a: a.result(CLEAN_LINE, accuracy=0.45), 3, OF_PASSING),
    ("no clean line", without(CLEAN_LINE), 3, "audit.flags.no-clean-line"),
    ("failed clean line", lambda a: a.result(CLEAN_LINE, accuracy=None), 3, "audit.flags.no-clean-line"),
    ("overlap in the audit", lambda a: a.every(lambda data: data.update(flags=["test-overlap"])), 3,
     "audit.flags.test-overlap"),
    ("tiny test set", lambda a: a.every(lambda data: data.update(test_images=499)), 3, "audit.flags.small-test"),
    ("too small for the policy", says("quick,", "quick, min_test_images: 1001,"), 3, "(cnn): 1000, at least"),
    ("facts left out", lambda a: a.every(lambda data: data.pop("test_images")), 3, "incomplete-record"),
    ("short attacks", lambda a: a.every(lambda data: data["key"].update(epochs=0.05)), 3, "0.05, at least 15 wanted"),
    ("attack that fits nothing", lambda a: a.result("pst", details={"train_accuracy": 0.2}), 3,
     "audit.flags.under-trained.pst"),
    ("one lucky seed", lambda a: a.recorded(record(a.digest, "pst", 0.9, seed=1), "audit/seed-1"), 1,
     "mean 55.0% and largest of 2 seeds, is 90.0%"),
    ("unlucky tenth seed", lambda a: a.recorded(record(a.digest, "pst", 0.9, seed=10), "audit/seed-10"), 1, "90.0%"),
    ("too few seeds", says("quick,", "quick, min_seeds: 2,"), 3, "seeds of class-mean (cnn): 1, at least 2 wanted"),
    ("one seed twice", twice, 3, "seeds of class-mean (cnn): 1, at least 2 wanted"),
    ("missing attack", without("pst"), 3, "pst is not recorded for these files"),
    ("diverged attack", lambda a: a.result("pst", accuracy=None, flags=["diverged"]), 3, "of pst (cnn) is not known"),
    ("diverged attack without a limit", diverged_alone, 3, "audit.flags.diverged.pst"),
    ("changed file", stale, 1, "1 changed, such as cat/0.png"),
    ("changed file without a rule", lambda a: (stale(a), a.says("images: {min_coverage: 1.0}\n", "")), 3, "1 changed"),
    ("added file", added, 1, "1 added, such as cat/new.png"),
    ("certificate of another release", others_certificate, 3, "certificate is for other files than these"),
    ("audit of another release", others_audit, 3, "7 recorded attacks are for other files than these"),
    ("vault of another release", foreign_vault, 1, "4 changed"),
    ("forged: bound above 1", forged(lambda data: data["curve"][1].update(certified_learnability=1.5)), 2, "damaged"),
    ("forged: bound without rank", forged(lambda data: data["curve"][1].update(rank=None)), 2, "there together"),
    ("forged: rank too low", forged(lambda data: data["curve"][1].update(rank=500)), 2, "rank 500 of 1000 draws"),
    ("forged: rank above draws", forged(lambda data: data["curve"][1].update(rank=1001)), 2, "rank 1001"),
    ("forged: no draws", forged(lambda data: data.update(draws=0)), 2, "of 0 draws gives no bound"),
    ("forged: falling curve", forged(falling), 2, "falls with eta"),
    ("forged: population below", forged(lambda data: data["curve"][1].update(population=0.1)), 2, "below the one"),
    ("forged: other sigma", forged(lambda data: data.update(sigma=0.04)), 2, "does not follow from q, eta and sigma"),
    ("forged: other baseline", forged(lambda data: data["baseline"].update(recipe="pst")), 2, "baseline is of recipe"),
    ("forged: baseline's draws", forged(lambda data: data["baseline"].update(draws=9)), 2, "baseline: at eta 0"),
    ("forged: unknown recipe", forged(lambda data: data.update(recipes={})), 2, "recipes lacks plain"),
    ("forged: alpha", forged(lambda data: data.update(alpha=0.0)), 2, "out of range"),
    ("forged: one attack as two", renamed, 2, "it holds the result of standard (cnn)"),
    ("forged: one attack as two, key too", renamed_key, 2, "its result of standard (cnn)"),
    ("forged: endless epochs", lambda a: a.every(lambda data: data["key"].update(epochs=-1)), 2, "epochs are"),
    ("forged: no test images", lambda a: a.every(lambda data: data.update(test_images=0)), 2, "0 test images"),
    ("policy without a rule", policy("version: 1\n"), 2, "sets no limit; add one of certify, audit, images"),
    ("policy of waivers", policy("version: 1\n" + WAIVER), 2, "the policy sets no limit"),
    ("section without a limit", policy("version: 1\ncertify: {recipe: plain}\n"), 2, "certify sets no limit"),
    ("alias bomb", policy(bomb() + POLICY), 2, "line 1: anchors (&) and aliases (*) are not allowed"),
    ("key twice", says("y: 0.45}", "y: 0.45, eta: 0}"), 2, "eta is there twice"),
    ("expired waiver", lambda a: setattr(a, "policy", POLICY + WAIVER), 1, "expired on 2026-01-31"),
]  # fmt: skip


@pytest.mark.parametrize(("bend", "code", "part"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_no_attempt_passes(
    bend: Callable[[Attempt], object], code: int, part: str, tmp_path: Path, command: Command
) -> None:
    made = Attempt(tmp_path)
    bend(made)
    done = made.check(command)
    assert done.code == code, done.stdout + done.stderr
    assert any(part in line for line in (done.stdout + done.stderr).splitlines()), done.stdout + done.stderr


def test_the_unbent_evidence_passes(tmp_path: Path, command: Command) -> None:
    made = Attempt(tmp_path)
    done = made.check(command)
    assert done.code == 0, done.stdout
    made.recorded(record(made.digest, "pst", 0.3, seed=1), "audit/seed-1")
    assert made.check(command).code == 0, "more seeds may pass too"


@pytest.mark.parametrize("of", ["release", "policy"])
def test_an_earlier_check_of_something_else_excuses_nothing(of: str, tmp_path: Path, command: Command) -> None:
    made = Attempt(tmp_path)
    before = made.other() if of == "release" else Attempt(tmp_path / "same")
    if of == "policy":
        before.policy += "# another file\n"
    made.earlier(before, command)
    done = made.check(command)
    assert done.code == 2
    assert f"is the check of another {of}; write a new one" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_earlier_check_of_the_same_excuses_its_failures(tmp_path: Path, command: Command) -> None:
    made = Attempt(tmp_path)
    made.earlier(Attempt(tmp_path / "same"), command)
    assert made.check(command).code == 0


def test_a_waiver_accepts_an_unmet_condition_and_nothing_else(tmp_path: Path, command: Command) -> None:
    made = Attempt(tmp_path)
    made.certified(baseline=None, flags=["bound-at-chance"])
    waived = "".join(
        f"- {{rule: {rule}, reason: a test, expires: 9999-12-31}}\n"
        for rule in ("certify.baseline", "certify.flags.bound-at-chance")
    )
    made.policy = f"{POLICY}waivers:\n{waived}"
    assert made.check(command).code == 0
    made.certified(baseline=None, flags=["bound-at-chance", "surrogate-unfitted"])
    assert made.check(command).code == 3

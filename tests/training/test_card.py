"""The kernels of a graphics card, run on the processor thread by thread, have the bits of the processor's kernels."""

import ctypes
import functools
import importlib.util
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import digests
import host_card
import numpy as np
import pytest
from host_card import HostCard
from numba import njit
from numpy.typing import NDArray

from mnist_ablate.data import PIXELS
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import stream, words16
from mnist_ablate.errors import DeviceError
from mnist_ablate.training.engines import form
from mnist_ablate.training.engines.card import compiler, driver, memory, study
from mnist_ablate.training.engines.card.driver import Card
from mnist_ablate.training.engines.card.layout import dtype
from mnist_ablate.training.engines.card.memory import THREADS, jumps
from mnist_ablate.training.engines.card.source import OPTIONS, source
from mnist_ablate.training.engines.card.study import Trainer
from mnist_ablate.training.engines.kernels import arithmetic, arrays
from mnist_ablate.training.engines.kernels.constants import TINY
from mnist_ablate.training.engines.kernels.optimisers import update_vector
from mnist_ablate.training.engines.kernels.rooms import Parameter
from mnist_ablate.training.protocol import Chance, RunResult

FEW = (
    "baseline",
    "all techniques",
    "depth 3, odd width",
    "group norm",
    "evaluation in train mode",
    "dropout of pixels",
)
"""Runs that go through all phases."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the kernels as they are."""
    if host_card.WHY_NOT:
        pytest.skip(host_card.WHY_NOT)
    return host_card.build(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def card(library: Path) -> HostCard:
    """Return a card whose threads take turns in order."""
    card = HostCard(library)
    card.have(2048)
    return card


def trained(card: Card, names: Sequence[str], **changes: Any) -> dict[str, str]:
    """Train runs together; return the digest of each by name."""
    runs = [replace(digests.runs()[name], **changes) for name in names]
    return {run.cell: digests.digest(ok(result)) for run, result in Trainer(card, b"").train(runs, digests.images())}


def ok(result: RunResult | Exception) -> RunResult:
    """Return a result, or raise what went wrong."""
    if isinstance(result, Exception):
        raise result
    return result


def expected(names: Sequence[str]) -> dict[str, str]:
    """Return the committed digests of runs."""
    return {name: digests.expected()[name] for name in names}


def test_every_run_has_the_digest_of_the_processor(card: HostCard) -> None:
    """All runs at once, of all shapes, have the digests that are committed for the processor's kernels."""
    assert trained(card, list(digests.runs())) == digests.expected()


@pytest.mark.parametrize("turns", ["backwards", "shuffled"])
def test_the_order_of_threads_changes_nothing(card: HostCard, turns: str) -> None:
    """In whatever order the threads of a phase take turns, the digests are the same: they do not race."""
    order = list(reversed(range(THREADS)))
    if turns == "shuffled":
        random.Random(0).shuffle(order)  # noqa: S311
    card.take_turns(order)
    assert trained(card, FEW) == expected(FEW)


def test_alone_or_beside_others(card: HostCard) -> None:
    """A run that has the card for itself has the digest that it has beside others."""
    assert trained(card, ["all techniques"]) == expected(["all techniques"])


@pytest.mark.parametrize(("memory", "multiprocessors"), [(256 + 4, 132), (2048, 0.25)])
def test_waves(card: HostCard, monkeypatch: pytest.MonkeyPatch, memory: int, multiprocessors: float) -> None:
    """Where memory or multiprocessors are few, some runs are trained at once, the others follow, with the same bits."""
    waves: list[int] = []
    start = Card.start

    def counted(card: Card, kernel: Any, blocks: int, *rest: Any) -> None:
        waves.append(blocks)
        start(card, kernel, blocks, *rest)

    monkeypatch.setattr(Card, "start", counted)
    names = ["label noise", "SGD", "L1", "AdamW"]
    card.have(memory)
    card.multiprocessors = multiprocessors  # type: ignore[assignment]
    assert trained(card, names) == expected(names)
    assert max(waves) == 2


def test_a_run_is_as_large_as_what_it_takes(card: HostCard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size by which a wave is filled is all that a run takes of the card's memory, its own labels included."""
    sizes: list[int] = []
    take = Card.memory

    def counted(card: Card, size: int) -> Any:
        sizes.append(size)
        return take(card, size)

    monkeypatch.setattr(Card, "memory", counted)
    runs, images = [digests.runs()[name] for name in ("label noise", "SGD")], digests.images()
    list(Trainer(card, b"").train(runs, images))
    shared = [jumps(), images.train_images, images.train_labels, images.test_images, images.test_labels]
    own = sum(sizes) - sum(array.nbytes for array in shared)
    assert own == sum(study._One(run, images, Chance()).size for run in runs)


def test_what_does_not_fit_is_said(card: HostCard) -> None:
    """A run that is larger than the card's memory gets an error with sizes and remedy; the others are trained."""
    card.have(256 + 2)
    runs = [replace(digests.runs()[name], probes=()) for name in ("baseline", "SGD")]
    found = {run.cell: result for run, result in Trainer(card, b"").train(runs, digests.images())}
    assert isinstance(found["baseline"], DeviceError)
    assert "MiB of the card's memory, and 2 MiB are free. End what" in str(found["baseline"])
    assert digests.digest(ok(found["SGD"])) == digests.expected()["SGD"]


def test_epochs_are_told(card: HostCard) -> None:
    """Whoever waits hears after each epoch how many are done, also of runs that diverge and end early."""
    heard = []
    runs = [replace(digests.runs()[name], probes=()) for name in ("diverges", "SGD")]
    list(Trainer(card, b"").train(runs, digests.images(), lambda done, total: heard.append((done, total))))
    assert heard[-1] == (4, 4)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


FAULTS = {
    # The last thread adds up the losses of a batch in the phase in which others compute them.
    "race": (
        (
            "run.train.labels[rows[i]], i, place);\n    });\n",
            "run.train.labels[rows[i]], i, place);\n    } if (t == THREADS - 1) {\n        double total = 0;\n"
            "        for (int i = 0; i < n; i++) total += run.batch_losses[i];\n        *loss = total / n;\n    });\n",
        ),
        ("        *loss = total / n;\n    });\n}", "    });\n}"),
    ),
    # Exponentials are taken in the phase that computes logits.
    "missing barrier": (
        ("last, e / CLASSES, e % CLASSES));\n    PHASE(for", "last, e / CLASSES, e % CLASSES);\n    for"),
    ),
    # The gradient of the output layer's biases is added up from the last image to the first.
    "another order of a sum": (
        (
            "for (int i = 0; i < n; i++) gradient += last.dz[i * last.stride + c];",
            "for (int i = n - 1; i >= 0; i--) gradient += last.dz[i * last.stride + c];",
        ),
    ),
    # Adam's mean is rounded twice.
    "a product apart": (("fma(rule.new_m, g[e], rule.keep_m * m[e])", "(rule.new_m * g[e] + rule.keep_m * m[e])"),),
}


@pytest.mark.skipif(bool(host_card.WHY_NOT), reason=host_card.WHY_NOT)
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str, tmp_path: Path) -> None:
    """A race, a missing barrier, another order of a sum and another rounding change a digest.

    The race changes none while threads take turns in order, as on most cards most of the time.
    """
    card = HostCard(host_card.build(tmp_path, *FAULTS[fault]))
    forwards = trained(card, ["loss of batches"]) == expected(["loss of batches"])
    card.take_turns(range(THREADS - 1, -1, -1))
    backwards = trained(card, ["loss of batches"]) == expected(["loss of batches"])
    assert (forwards, backwards) == (fault == "race", False)


@njit
def _exp_each(x: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    for i in range(len(x)):
        out[i] = arithmetic.exp(x[i])


def same_bits(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """Return whether two arrays have the same bits, except those of NaN."""
    nan = np.isnan(ours)
    return bool((nan == np.isnan(theirs)).all()) and ours[~nan].tobytes() == theirs[~nan].tobytes()


def any_floats(drawn: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Return float32 numbers of all sizes: zeros, subnormal and infinite ones and NaN among them."""
    whole = drawn.integers(0, 2**32, n, np.uint32).view(np.float32)
    whole[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**-100, -(2.0**-100), 2.0**-149]
    return whole


def test_exponentials_and_logarithms(card: HostCard) -> None:
    """The card's exponentials of any float32, and logarithms of normal float64, have the bits of the processor's."""
    drawn = np.random.default_rng(0)
    of_softmax = -drawn.exponential(5, 200_000).astype(np.float32)
    x = np.concatenate([of_softmax, any_floats(drawn, 200_000), np.array([-708, -708.1, 709, 709.1], np.float32)])
    powers, ours = np.empty(len(x)), np.empty(len(x))
    each: Any = _exp_each
    each(x, powers)
    card.each("exp", x, ours)
    assert same_bits(ours, powers)
    y = drawn.integers(2**52, 2**63 - 2**52, 200_000, np.uint64).view(np.float64)
    y = np.concatenate([y, 1 + drawn.exponential(3, 200_000), [1.0, 10.0, np.inf]])
    ours = np.empty(len(y))
    card.each("log", y, ours)
    assert same_bits(ours, arrays.log(y))


def test_square_roots_and_quotients(card: HostCard) -> None:
    """Roots and inverses without branches are IEEE's for every mantissa, quotients for any divisor and many dividends.

    Smallest and largest arguments have the same mantissas.
    """
    every = (np.float32(1).view(np.uint32) + np.arange(2**23, dtype=np.uint32)).view(np.float32)  # from 1 to 2
    ours, one = np.empty_like(every), np.float32(1)
    for exponent in (0, 1, -100, 27):
        x = np.ldexp(every, exponent)
        for name, theirs in (("root", np.sqrt(x)), ("inverse", one / x)):
            card.each(name, x, ours)
            assert same_bits(ours, theirs)
    others = np.random.default_rng(2).permutation(every)
    hardest = np.full_like(every, every[-1])  # its inverse is nearly between two numbers
    for dividends, divisors, above, below in (
        (others, every, 0, 0), (every, hardest, 0, 0), (others, every, -100, 23), (others, every, 27, -50)
    ):  # fmt: skip
        a, b = np.ldexp(dividends, above), np.ldexp(divisors, below)
        card.each("quotient", a, b, ours)
        assert same_bits(ours, a / b)


def test_which_numbers_are_rare(card: HostCard) -> None:
    """What is outside 2**-100 to 2**28, 0 and NaN among it, is left to the card's own roots and divisions."""
    x = any_floats(np.random.default_rng(3), 100_000)
    bounds, sides = np.array([[2.0**-100, 2.0**-100, 2.0**28, 2.0**28], [0, 1, 0, np.inf]], np.float32)
    x[8:12] = np.nextafter(bounds, sides)
    found = np.empty(len(x), np.uint32)
    card.each("rare", x, found)
    assert np.array_equal(found == 0, (np.abs(x) >= 2.0**-100) & (np.abs(x) < 2.0**28))


OPTIMISERS: dict[str, dict[str, Any]] = {
    "Adam": {},
    "Adam, L2": {"l2": 1e-2},
    "Adam, L1": {"l1": 1e-2},
    "AdamW": {"optimiser": "adamw", "l2": 1e-2},
    "SGD": {"optimiser": "sgd"},
    "SGD, L1 and L2": {"optimiser": "sgd", "l1": 1e-2, "l2": 1e-2},
}


@pytest.mark.parametrize("at_once", ["update", "update_fours"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_updates(name: str, at_once: str, card: HostCard) -> None:
    """One step of each optimiser has the processor's bits, from numbers of all sizes that a run may have stored."""
    drawn, n = np.random.default_rng(1), 2**16
    rule = form.rule(Settings(**OPTIMISERS[name]), np.float32)
    rule = rule._replace(rate=form.numbers(np.float32, 1e-3), correction=form.numbers(np.float32, 1.7))
    gradient, value, m, v = (any_floats(drawn, n) for _ in range(4))
    gradient[n // 2 :], value[n // 2 :] = drawn.normal(size=(2, n // 2))  # as in most steps
    m = np.where(np.abs(m) < TINY, np.float32(0), m)
    v = np.where(v < TINY, np.float32(0), np.abs(v))
    m[-n // 4 :], v[-n // 4 :] = np.float32(1e-3) * drawn.normal(size=(2, n // 4)) ** np.array([[1], [2]])
    gradient[-n // 16 :] = m[-n // 16 :] = v[-n // 16 :] = 0  # as of black pixels
    theirs = Parameter(value[None].copy(), m[None].copy(), v[None].copy())
    update_vector(theirs, gradient[None].copy(), rule)
    run = np.zeros(1, dtype("Run"))
    run["kind"], run["still"] = rule.kind, rule.still
    run["rate"], run["correction"] = rule.rate.ctypes.data, rule.correction.ctypes.data
    for constant in ("l1", "decay", "shrink", "keep_m", "keep_v", "new_m", "new_v", "eps"):
        run[constant] = getattr(rule, constant)[0]
    ours = [value.copy(), m.copy(), v.copy()]
    places = [array.ctypes.data_as(ctypes.c_void_p) for array in (run, gradient, *ours)]
    getattr(card._cuda, f"host_{at_once}")(*places, ctypes.c_int(n))
    assert not np.array_equal(ours[0], value, equal_nan=True)
    assert all(map(same_bits, ours, (theirs.value[0], theirs.m[0], theirs.v[0])))


@pytest.fixture
def words_seen(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.uint16]]:
    """Collect the random words that the card has at the end of a run: of pixels, then of each layer."""
    seen: list[NDArray[np.uint16]] = []
    state = memory.OnCard.state

    def look(self: Any, card: Card) -> Any:
        for name, n in (("pixel_words", PIXELS), ("words0", 20), ("words1", 20)):
            found = np.empty((16, n), np.uint16)
            card.download(self.at[name], found)
            seen.append(found)
        return state(self, card)

    monkeypatch.setattr(memory.OnCard, "state", look)
    return seen


def test_random_words_are_numpys(card: HostCard, words_seen: list[NDArray[np.uint16]]) -> None:
    """The words of the last step are those of numpy's PCG64, at the same place of the same stream."""
    changes = {"dropout": 0.5, "input_dropout": 0.2, "width": 20, "batch_size": 16, "epoch_steps": 3, "epochs": 1}
    run: Run = digests.runs()["dropout of pixels"]
    run = replace(run, settings=run.settings.model_copy(update=changes))
    list(Trainer(card, b"").train([run], digests.images()))
    for place, found in zip(("input", "1", "2"), words_seen, strict=True):
        assert np.array_equal(found, words16(stream(run.seed, f"dropout/{place}"), found.shape, 3)[-1])


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HOST_CARDS": "0"}, r"shows no card \(CUDA_ERROR_NO_DEVICE\)"),
        ({"HOST_DRIVER": "11080"}, r"for CUDA 11\.8, and 12\.0 is needed. Install a newer driver"),
        ({"HOST_CAPABILITY": "75"}, r"Test card has compute capability 7\.5, and 8\.0"),
    ],
)
def test_why_a_card_cannot_be_used(
    library: Path, environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No card, an old driver and an old card: each gets one sentence, with the remedy."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        # The library asks its own copy of the environment.
        ctypes.CDLL(None).setenv(name.encode(), value.encode(), 1)
    try:
        with pytest.raises(DeviceError, match=words) as caught:
            Card(str(library))
        assert "--device cpu" in str(caught.value)
    finally:
        for name in environment:
            ctypes.CDLL(None).unsetenv(name.encode())


def test_no_driver_is_said() -> None:
    """A machine without CUDA's driver is told what to install."""
    with pytest.raises(DeviceError, match=r"has no CUDA driver\. Install NVIDIA's driver, or take --device cpu"):
        Card("no such library.so")


# ---- Compiled for cards that are not here ----

SPILLED = 800
"""Bytes that a function may keep in memory: registers that it saves for whoever called it."""


@functools.cache
def compiled(capability: int, kind: str) -> tuple[bytes, str]:
    """Compile the kernels for a compute capability; return machine code or PTX, and what the compiler says."""
    try:
        nvrtc = compiler.Compiler()
    except DeviceError as error:
        pytest.skip(str(error))
    architecture = f"--gpu-architecture={'sm' if kind == 'CUBIN' else 'compute'}_{capability}"
    return nvrtc.compile(source(), *OPTIONS, architecture, "-Xptxas=-v", kind=kind)


@pytest.mark.parametrize("capability", [80, 90])
def test_registers_and_memory(capability: int) -> None:
    """On both kinds of cards no function spills sums, and registers, stack and shared memory are within bounds."""
    code, said = compiled(capability, "CUBIN")
    assert code.startswith(b"\x7fELF")
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill stores", said)]
    assert len(spills) > 10
    assert max(spills) <= SPILLED, said
    (used,) = re.findall(r"Used (\d+) registers.* (\d+) bytes cumulative stack size, (\d+) bytes smem", said)
    registers, stack, shared = map(int, used)
    assert registers * THREADS <= 65_536
    assert stack <= driver._STACK_BYTES
    assert shared <= 48 * 1024  # what a block has without asking for more


def disassembled(code: bytes, folder: Path) -> str:
    """Return machine code as text, by NVIDIA's disassembler, which comes with a package or with torch for CUDA."""
    packages = [spec for name in ("nvidia", "triton") if (spec := importlib.util.find_spec(name))]
    folders = [Path(place) for spec in packages for place in spec.submodule_search_locations or []]
    found = [str(path) for place in folders for path in place.glob("**/bin/nvdisasm")]
    tool = shutil.which("nvdisasm") or next(iter(found), None)
    if tool is None:
        pytest.skip("needs nvdisasm: pip install nvidia-cuda-nvdisasm")
    (folder / "kernels.cubin").write_bytes(code)
    command = [tool, "-c", str(folder / "kernels.cubin")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


def inner_loops(text: str) -> list[list[str]]:
    """Return the instructions of each loop that has no other loop and no call in it."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in text.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;", line):
            jump = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", instruction[1])
            if jump and jump[1] in labels:  # back, to what was already there
                loops.append((labels[jump[1]], len(instructions)))
            instructions.append(instruction[1])
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    bodies = [instructions[begin : end + 1] for begin, end in inner]
    return [body for body in bodies if not any("CALL" in instruction for instruction in body)]


@pytest.mark.parametrize("capability", [80, 90])
def test_inner_loops_stay_in_registers(capability: int, tmp_path: Path) -> None:
    """In the machine code no inner loop loads or stores a thread's own memory (LDL, STL), those of products included.

    A thread multiplies 8 indices of 16 rows and 4 columns in a round: 512 fused multiply-adds.
    """
    loops = inner_loops(disassembled(compiled(capability, "CUBIN")[0], tmp_path))
    products = [body for body in loops if sum("FFMA" in instruction for instruction in body) >= 512]
    assert len(products) >= 5  # pixels and units, forwards and backwards, with zeros left out and without
    assert len(loops) > 20
    assert [body for body in loops if any(re.search(r"\b(LDL|STL)\b", instruction) for instruction in body)] == []


def test_ptx_keeps_to_ieee_754() -> None:
    """In the code before the assembler no operation flushes or approximates, and all say how they round.

    The assembler may fuse a product and a sum only where neither says how it rounds.
    """
    text = compiled(80, "PTX")[0].decode()
    operations = re.findall(r"^\s*(?:@!?%\w+\s+)?([a-z0-9_.]+\.f(?:32|64))\s", text, re.MULTILINE)
    rounded = [name for name in operations if name.split(".")[0] in ("add", "sub", "mul", "fma", "div", "sqrt", "rcp")]
    assert len(rounded) > 1000
    assert {name for name in rounded if ".rn." not in name} == set()
    assert not [name for name in operations if ".ftz" in name or ".approx" in name or name.startswith("mad")]


def test_a_product_and_a_sum_stay_apart() -> None:
    """With the options of the kernels the compiler fuses nothing; with its own it would."""
    text = 'extern "C" __global__ void f(float *a) { a[0] = a[1] * a[2] + a[3]; }'
    try:
        nvrtc = compiler.Compiler()
    except DeviceError as error:
        pytest.skip(str(error))
    apart, fused = (
        nvrtc.compile(text, *options, "--gpu-architecture=compute_80", kind="PTX")[0] for options in (OPTIONS, ())
    )
    assert (b"fma" in apart, b"fma" in fused) == (False, True)

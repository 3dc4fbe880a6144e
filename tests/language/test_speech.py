"""Messages, numbers and kept text in the language that is being spoken."""

import pickle
from contextvars import copy_context

import pytest
from languages import marked, numbers, unmarked

from mnist_ablate import language
from mnist_ablate.design.settings import in_words
from mnist_ablate.language import count, figures, later, later_as, later_count, say, speaking, told, told_as, whole
from mnist_ablate.report.format import interval, joined, number, p_value, percent, seeds


def test_english_is_spoken_unless_another_language_is() -> None:
    """The language holds within the block alone, also where the block ends with an error, and in no other thread."""
    assert say("Every run") == "Every run"
    with speaking("es"):
        assert say("Every run") == "Todos los entrenamientos"
        with speaking("en"):
            assert say("Every run") == "Every run"
        assert say("Every run") == "Todos los entrenamientos"
    with pytest.raises(KeyError), speaking("es"):
        raise KeyError
    assert language.spoken().code == "en"
    assert copy_context().run(lambda: language.spoken().code) == "en"


@pytest.mark.parametrize(("n", "english", "spanish"), [
    (0, "0 runs", "0 entrenamientos"), (1, "1 run", "1 entrenamiento"), (2, "2 runs", "2 entrenamientos"),
    (1_234, "1,234 runs", "1234 entrenamientos"), (12_345, "12,345 runs", "12\N{NO-BREAK SPACE}345 entrenamientos"),
])  # fmt: skip
def test_plurals(n: int, english: str, spanish: str) -> None:
    """A count has the form that goes with it, and its thousands apart as the language has them."""
    assert count(n, "{n} run", "{n} runs") == english
    with speaking("es"):
        assert count(n, "{n} run", "{n} runs") == spanish


def test_numbers_are_written_as_the_language_does() -> None:
    """Spanish has a decimal comma, in percents, p values and intervals too; an exponent stays."""
    with speaking("es"):
        assert number(-1.25, 2) == "−1,25"  # noqa: RUF001
        assert percent(0.9944) == "99,44 %"
        assert p_value(0.0321) == "0,032"
        assert p_value(0.0001) == "< 0,001"
        assert interval(-0.05, 0.12) == "de −0,05 a +0,12"  # noqa: RUF001
        assert figures("1e-05, 0.5 and 1,234,567.25") == "1e-05, 0,5 and 1\N{NO-BREAK SPACE}234\N{NO-BREAK SPACE}567,25"
        assert whole(1000) == "1000"
    assert figures("0.5, 1,234") == "0.5, 1,234"


@pytest.mark.parametrize(("items", "last", "spanish"), [
    (["L2", "dropout"], "and", "L2 y dropout"), (["L2", "inicialización"], "and", "L2 e inicialización"),
    (["7", "8"], "or", "7 u 8"), (["a", "b", "c"], "or", "a, b o c"), (["a"], "and", "a"), ([], "and", ""),
    (["a", "hielo"], "and", "a e hielo"),
])  # fmt: skip
def test_lists_in_spanish(items: list[str], last: "language.Language", spanish: str) -> None:
    """'y' is 'e' before the sound of an i, and 'o' is 'u' before that of an o."""
    with speaking("es"):
        assert joined(items, last) == spanish  # type: ignore[arg-type]


def test_seeds_in_spanish() -> None:
    """One seed and several, with their ranges."""
    with speaking("es"):
        assert seeds([3]) == "semilla 3"
        assert seeds([0, 1, 2, 7]) == "semillas 0–2, 7"  # noqa: RUF001


@pytest.mark.parametrize(("name", "spanish"), [
    ("baseline", "baseline"), ("l2+learning_rate=0.001", "L2 + tasa de aprendizaje 0,001"),
    ("trend per doubling of batch_size", "tendencia por duplicación de tamaño de lote"), ("l2 alone", "solo L2"),
    ("without batch_norm", "sin BatchNorm"), ("norm=layer", "normalización por capa"), ("mine=0.5", "mine=0.5"),
    ("evaluation=train", "evaluación en modo entrenamiento"), ("l2=1e-05", "L2 1e-05"),
])  # fmt: skip
def test_names_of_cells_and_effects_in_spanish(name: str, spanish: str) -> None:
    """Settings and their levels are translated; a study's own factors stay as they are written."""
    with speaking("es"):
        assert in_words(name) == spanish


def test_kept_text_can_be_said_again() -> None:
    """What is computed once is English text, and a page says it in its language, with all that is within it."""
    label = later_as("in a sentence", "test loss")
    kept = later("{failed} of {total} runs that it needs have no {label}, too many to leave out.", failed=3, total=40,
                 label=label)  # fmt: skip
    assert kept == "3 of 40 runs that it needs have no test loss, too many to leave out."
    several = later_count(2_000, "{n} run", "{n} runs")
    assert several == "2,000 runs"
    for text in (kept, pickle.loads(pickle.dumps(kept))):  # noqa: S301 # ours
        with speaking("es"):
            assert told(text).startswith("En 3 de los 40 entrenamientos necesarios falta la pérdida de prueba")
        assert told(text) == kept
    with speaking("es"):
        assert told(several) == "2000 entrenamientos"


def test_a_users_own_words_stay() -> None:
    """What no catalogue has is shown as it was written, braces and all."""
    with speaking("es"):
        assert told("My study of {things}") == "My study of {things}"
        assert told_as("level", "mine") == "mine"
        assert told(later_as("unit", "{apples}")) == "{apples}"


def test_the_language_of_marks_marks_messages_and_not_their_values() -> None:
    """So that a word which no catalogue has is seen within a message, too."""
    with speaking(marked()):
        said = say("{what} is {size} higher", what="Escaped", size=0.5)
        assert said == "Escaped⟦ is ⟧0.5⟦ higher⟧"
        assert unmarked(said).split() == ["Escaped", "0.5"]


def test_numbers_of_a_text() -> None:
    """The helper of other tests reads numbers of both languages' forms alike once commas are points."""
    assert numbers("1,234 and 0.50, 12,345.5") == ["1234", "0.50", "12345.5"]

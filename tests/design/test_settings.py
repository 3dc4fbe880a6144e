"""The settings of a run, and the names that people use for them; `tests/training` has what each does."""

import pytest

from mnist_ablate.design.plan import cells
from mnist_ablate.design.settings import CHANCE, KNOWN_FACTORS, LABELS, Settings, in_words
from mnist_ablate.design.study import bundled_studies, load_study
from mnist_ablate.errors import TrainingError
from mnist_ablate.training.engines.fused import FusedEngine


def test_only_a_model_of_ones_own_needs_autograd() -> None:
    """Every setting of the perceptron can be trained by any engine."""
    assert Settings().for_autograd == []
    assert Settings(optimiser="sgd", l1=0.1, norm="layer", norm_place="after", evaluation="train").for_autograd == []
    assert Settings(model="a:b").for_autograd == ["model"]


def test_the_fused_engine_refuses_what_it_has_no_code_for() -> None:
    """It names the setting and the engine to use, and trains nothing else instead."""
    with pytest.raises(TrainingError, match='has no code for model: take "autograd"'):
        FusedEngine(Settings(model="a:b"), 0)


def test_a_model_of_ones_own_may_read_every_setting() -> None:
    """With a model, every setting may have an effect: its function may read it."""
    settings = Settings(model="a:b", norm_place="after", dropout_seed=3)
    assert settings.reduced() == settings


def test_reduced_settings_are_reduced() -> None:
    """Reducing twice is the same as once, and settings with an effect stay."""
    settings = Settings(norm_place="after", shared_norm=True, evaluation="train", width=8)
    assert settings.reduced() == Settings(width=8)
    assert settings.reduced().reduced() == settings.reduced()
    assert Settings(optimiser="adamw").reduced() == Settings()
    acting = Settings(batch_norm=True, norm_place="after", shared_norm=True, evaluation="train")
    assert acting.reduced() == acting


def test_the_order_of_settings_is_fixed() -> None:
    """The order of the settings names the cells, so it must not change."""
    assert KNOWN_FACTORS[:3] == ("l2", "dropout", "batch_norm")
    assert "own" not in KNOWN_FACTORS


def test_every_setting_has_a_name_without_underscores() -> None:
    """No two settings share a name, and none reads like code."""
    assert set(LABELS) == set(KNOWN_FACTORS)
    assert len(set(LABELS.values())) == len(LABELS)
    assert not [name for name in LABELS.values() if "_" in name or not name]
    assert {LABELS[name] for name in CHANCE} == set(CHANCE.values())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("baseline", "baseline"),
        ("l2+dropout+batch_norm", "L2 + dropout + BatchNorm"),
        ("batch_norm+learning_rate=1e-05", "BatchNorm + learning rate 1e-05"),
        ("l2 x batch_norm", "L2 x BatchNorm"),
        ("trend per doubling of train_images", "trend per doubling of training images"),
        ("batch_norm alone", "BatchNorm alone"),
        ("without dropout", "without dropout"),
        ("input_dropout=0.2+dropout=0.5", "input dropout 0.2 + dropout 0.5"),
        ("evaluation=train+shared_norm", "evaluation mode train + shared BatchNorm"),
        ("model=own.nets:batch_norm", "model own.nets:batch_norm"),
        ("width=1e+06", "width 1e+06"),
        ("shuffle=l2", "shuffle=l2"),
        ("my_l2+width_of_mine", "my_l2 + width_of_mine"),
    ],
)
def test_names_become_words(name: str, words: str) -> None:
    """Settings get their names, levels and a study's own factors keep theirs."""
    assert in_words(name) == words


def test_words_tell_the_cells_of_every_bundled_study_apart() -> None:
    """No two cells of a study have the same words, and none of them has an underscore."""
    for study in map(load_study, bundled_studies()):
        names = [in_words(cell.name) for cell in cells(study)]
        assert len(set(names)) == len(names)
        assert not [name for name in names if "_" in name]

"""The settings of a run; `test_study` tests them in studies, `tests/training` what each does."""

import pytest

from mnist_ablate.design.settings import KNOWN_FACTORS, Settings
from mnist_ablate.errors import TrainingError
from mnist_ablate.training.engines.fused import FusedEngine


def test_defaults_can_be_trained_by_any_engine() -> None:
    """Neither the baseline nor the three techniques need autograd."""
    assert Settings().for_autograd == []
    assert Settings(l2=0.1, dropout=0.5, batch_norm=True, init="xavier", label_noise=0.1).for_autograd == []


def test_the_fused_engine_refuses_what_it_has_no_code_for() -> None:
    """It names every such setting and the engine to use, and trains nothing else instead."""
    with pytest.raises(TrainingError, match='has no code for optimiser, l1: take "autograd"'):
        FusedEngine(Settings(optimiser="sgd", l1=0.1), 0)


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

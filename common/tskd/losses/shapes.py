"""Checks of shapes and temperature, shared by the losses."""

from __future__ import annotations

from torch import Tensor

from tskd.errors import TskdError


def check_same_shape(loss: str, student: Tensor, teacher: Tensor) -> None:
    """Raise TskdError naming both shapes if they differ or have fewer than three axes."""
    if student.shape != teacher.shape or student.ndim < 3:
        raise TskdError(
            f"{loss}: expected student and teacher of one shape BNHW[D], found {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )


def check_temperature(temperature: float) -> None:
    """Raise TskdError unless the softmax can be taken at this temperature."""
    if temperature <= 0:
        raise TskdError(f"distillation loss: expected a temperature above 0, found {temperature:g}")

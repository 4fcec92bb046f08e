from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.vision.tensors import InputConvention, image_tensor


@given(
    seed=st.integers(0, 1000),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    colour=st.sampled_from(["bgr", "rgb"]),
    layout=st.sampled_from(["nchw", "nhwc"]),
    mean=st.sampled_from([0.0, 127.0, 127.5]),
    scale=st.sampled_from([1.0, 127.5, 128.0, 255.0]),
)
def test_the_tensor_is_what_the_convention_says(
    seed: int,
    width: int,
    height: int,
    colour: Literal["bgr", "rgb"],
    layout: Literal["nchw", "nhwc"],
    mean: float,
    scale: float,
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    tensor = image_tensor(pixels, InputConvention(width, height, colour, mean, scale, layout))
    expected = (pixels.astype(np.float64) - mean) / scale
    if colour == "rgb":
        expected = expected[:, :, ::-1]
    if layout == "nchw":
        expected = expected.transpose(2, 0, 1)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert tensor.shape == (1, *expected.shape)
    assert np.allclose(tensor[0], expected, atol=1e-4)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_view_of_an_image_is_taken(layout: Literal["nchw", "nhwc"]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    convention = InputConvention(10, 8, "bgr", 0.0, 1.0, layout)
    part = pixels[3:11, 5:15]
    assert np.array_equal(image_tensor(part, convention), image_tensor(part.copy(), convention))

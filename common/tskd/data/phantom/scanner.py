"""Turn a virtual abdomen into what an MR scanner would store: blur, coil sensitivity, Rician noise, 12-bit numbers."""

import numpy as np
from scipy import ndimage

from tskd.data.phantom.anatomy import Abdomen


def scan(body: Abdomen) -> np.ndarray:
    """MR image of the abdomen as int16 [X, Y, Z], range 0 to about 1500.

    Blur, coil sensitivity, contrast (gamma), noise level and receiver gain differ from patient to patient.
    """
    rng = body.rng
    sharpness = rng.uniform(0.4, 0.7)
    texture = 1 + 0.05 * body.noise(4 * body.spacing[0] / 2)
    signal = ndimage.gaussian_filter(body.intensity * texture, (sharpness, sharpness, 0.15))
    signal = np.clip(signal, 0, None) ** rng.uniform(0.85, 1.15)
    coil = np.exp(rng.uniform(0.1, 0.3) * body.noise(160))
    sigma = rng.uniform(0.008, 0.03)
    real = signal * coil + rng.normal(0, sigma, body.shape)
    imaginary = rng.normal(0, sigma, body.shape)
    gain = rng.uniform(450, 1100)
    return np.rint(np.hypot(real, imaginary) * gain).astype(np.int16)

from __future__ import annotations

import math

import numpy as np
import pytest

from hpc_vsr.metrics.field import measure_field, power_spectra, summarise_spectra, wavenumbers


@pytest.fixture
def hr() -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, size=(1, 48, 64)).astype(np.float32)


def test_errors_are_in_physical_units(hr):
    sr = hr + np.where(np.arange(64) % 2, 0.5, -0.3).astype(np.float32)
    found = measure_field(sr, hr, offset=-5.0, extent=20.0)
    assert found["bias"] == pytest.approx(0.1, abs=1e-5)
    assert found["rmse"] == pytest.approx(math.sqrt((0.25 + 0.09) / 2), rel=1e-5)
    assert found["mse"] == pytest.approx(found["rmse"] ** 2)
    assert found["psnr"] == pytest.approx(20 * math.log10(20 / found["rmse"]))
    for name, share in (("q99_error", 0.99), ("q999_error", 0.999)):
        assert found[name] == pytest.approx(np.quantile(np.abs(sr), share) - np.quantile(np.abs(hr), share), abs=1e-5)


def test_what_the_source_did_not_have_does_not_count(hr):
    sr = hr + 1
    gap = hr.copy()
    gap[0, 10:20, 10:20] = np.nan
    wrong = sr.copy()
    wrong[0, 10:20, 10:20] = 1e6
    assert measure_field(wrong, gap, 0.0, 10.0) == measure_field(sr, gap, 0.0, 10.0)
    assert measure_field(sr, gap, 0.0, 10.0)["rmse"] == pytest.approx(1)
    for mine, theirs in zip(power_spectra(wrong, gap).values(), power_spectra(sr, gap).values(), strict=True):
        np.testing.assert_allclose(mine, theirs)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (47, 63)])
@pytest.mark.parametrize("k", [0.125, 0.25, 0.375])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_appears_at_its_wavenumber(size, k, axis):
    rows, columns = np.mgrid[: size[0], : size[1]]
    wave = np.cos(2 * np.pi * k * (rows, columns)[axis])[None]
    spectrum = power_spectra(np.zeros_like(wave), wave)["hr"]
    assert wavenumbers(*size)[spectrum.argmax()] == pytest.approx(k, abs=1.01 / min(size))


def test_white_noise_has_a_flat_spectrum_of_its_variance():
    noise = [power_spectra(np.zeros((1, 64, 64)), frame[None])["hr"]
             for frame in np.random.default_rng(0).normal(0, 3, size=(200, 64, 64))]
    np.testing.assert_allclose(np.mean(noise, axis=0)[1:], 9, rtol=0.1)


def test_effective_resolution_is_where_the_error_takes_half_of_the_power():
    k = wavenumbers(64, 64)
    hr = k**-3.0
    error = np.where(k < 0.2, 0.1, 0.6) * hr
    figures = summarise_spectra(k, sr=hr / 2, hr=hr, error=error)
    assert figures["effective_resolution"] == pytest.approx(1 / k[k < 0.2].max())
    assert figures["log_spectral_distance"] == pytest.approx(10 * math.log10(2))
    assert figures["band_small"] == pytest.approx(-10 * math.log10(2))
    assert summarise_spectra(k, hr, hr, hr)["effective_resolution"] is None
    assert summarise_spectra(k, hr, hr, 0 * hr)["effective_resolution"] == pytest.approx(2)


def test_rings_that_the_simulation_left_empty_are_not_compared():
    k = wavenumbers(64, 64)
    hr = np.where(k < 0.4, 1.0, 1e-14)
    assert summarise_spectra(k, np.ones_like(k), hr, 0 * hr)["log_spectral_distance"] == pytest.approx(0)

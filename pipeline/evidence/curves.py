"""How the gates' curves are shown: their units, and which of them stand for other measures."""

from __future__ import annotations

PER_FRAME = ("reach", "over_exposed", "contrast", "sharpness", "flat")  # the threshold is drawn too: it has the unit of the curve
UNITS = {
    "reach": "levels away from frame 0",
    "hold": "levels changed since the frame before",
    "cut": "Delta E to the frame before",
    "flicker": "percent back and forth",
    "flashes": "mean luma",
    "red_flashes": "mean luma",
    "black_frames": "share under 25",
    "pitch_black_frames": "share under 10",
    "exposure_drift": "mean luma",
    "over_exposed": "share burnt out",
    "contrast": "standard deviation",
    "sharpness": "p99 of Sobel",
    "flat": "flat share",
}
CURVE_OF = {  # measures without a curve of their own, and the curve to draw for them
    "sharpness_ratio": "sharpness",
    "over_exposed_rise": "over_exposed",
    "texture_flicker": "flicker",
    "colour_drift": "exposure_drift",
}

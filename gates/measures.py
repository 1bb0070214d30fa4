"""What is measured: every number's unit, range and meaning. Formulas stand with the functions that are named.

Profiles may only name measures of these lists, and docs/gates.md shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Measure:
    says: str
    unit: str = "share"
    low: float = 0.0
    high: float = 1.0


FLAG = "0 or 1"
IMAGE = {
    "undecodable": Measure("the file cannot be decoded", FLAG),
    "frames": Measure("pictures in the file", "pictures", 1, inf),
    "width": Measure("of the decoded picture", "pixels", 1, inf),
    "height": Measure("of the decoded picture", "pixels", 1, inf),
    "non_finite": Measure("NaN in the model's output, or in a floating-point file", FLAG),
    "contrast": Measure("standard deviation of luma (picture.contrast)", "levels", 0, 127.5),
    "dark": Measure("pixels with luma under 25 (picture.dark_fraction)"),
    "pitch_black": Measure("pixels with luma under 10 (picture.dark_fraction)"),
    "over_exposed": Measure("pixels with every channel at 250 or more (picture.over_exposed_fraction)"),
    "flat": Measure("pixels within 6 levels of their 3x3 median (picture.flat_fraction)"),
    "sharpness": Measure("99th percentile of the Sobel gradient (picture.sharpness)", "levels", 0, 1443),
    "crispness": Measure("the same, over that at half size (picture.crispness)", "ratio", 0, inf),
    "bars": Measure("height or width taken by black bars (picture.bars)"),
    "duplicate": Measure("bits by which the nearest other keyframe's hash differs (picture.perceptual_hash)", "bits", 0, 64),
}
VIDEO = {
    "undecodable": Measure("the file cannot be decoded to its end, or is not the codec that was promised", FLAG),
    "frames": Measure("decoded frames", "frames", 1, inf),
    "fps": Measure("frames a second, as the container has it", "1/s", 0, inf),
    "width": Measure("of the decoded frames", "pixels", 1, inf),
    "height": Measure("of the decoded frames", "pixels", 1, inf),
    "uneven": Measure("frames do not stand at equal distances in time", FLAG),
    "too_long": Measure("more frames than gates read", FLAG),
    "non_finite": Measure("NaN in the model's output", FLAG),
    "reach": Measure("the furthest that any of 24x16 cells ever gets from frame 0 (clip.most_changed)", "levels", 0, 255),
    "motion_mean": Measure("mean over frames of the most changed cell", "levels", 0, 255),
    "drawings": Measure("different drawings in the clip (clip.Reduced)", "drawings", 1, inf),
    "hold": Measure("longest run of frames that show one drawing (motion.longest_hold)"),
    "cut": Measure("how cut-like the most cut-like place is; 1 is a cut (motion.strongest_cut)", "ratio", 0, inf),
    "flicker": Measure("the picture's light going back and forth between drawings (light.flicker)", "percent", 0, 8),
    "texture_flicker": Measure("the median cell's light going back and forth by itself (light.flicker)", "levels", 0, 25),
    "flashes": Measure("most general flashes in any second (light.flashes)", "flashes", 0, inf),
    "red_flashes": Measure("most red flashes in any second (light.flashes)", "flashes", 0, inf),
    "black_frames": Measure("frames that are dark on 98 % of their area, fades apart (light.black_frames)", "frames", 0, inf),
    "pitch_black_frames": Measure("the same, with luma under 10", "frames", 0, inf),
    "colour_drift": Measure("how the palette moved; 1 is a drift (light.drift)", "ratio", 0, inf),
    "exposure_drift": Measure("how much L moved (light.drift)", "L", 0, 100),
    "bars": Measure("height or width that is black through the whole clip (picture.bars)"),
    "over_exposed": Measure("median over frames of the burnt-out share (picture.over_exposed_fraction)"),
    "over_exposed_rise": Measure("the same, less the keyframe's, if there is one", "share", -1, 1),
    "flat": Measure("median over 12 frames (picture.flat_fraction)"),
    "contrast": Measure("median over frames (picture.contrast)", "levels", 0, 127.5),
    "sharpness": Measure("median over 12 frames (picture.sharpness)", "levels", 0, 1443),
    "sharpness_ratio": Measure("the same, over the keyframe's", "ratio", 0, inf),
    "first_frame_ssim": Measure("worst of 8x8 tiles against the keyframe (pair.likeness)", "SSIM", -1, 1),
    "first_frame_delta_e": Measure("mean colour difference to the keyframe (pair.likeness)", "Delta E", 0, inf),
    "first_frame_tile_delta_e": Measure("colour difference of the worst tile (pair.likeness)", "Delta E", 0, inf),
    "last_frame_ssim": Measure("as first_frame_ssim, where a last frame is given", "SSIM", -1, 1),
    "last_frame_delta_e": Measure("as first_frame_delta_e", "Delta E", 0, inf),
    "last_frame_tile_delta_e": Measure("as first_frame_tile_delta_e", "Delta E", 0, inf),
}
WANTED = {  # what an expectation adds, for rules that say `differs_from`
    "expected_frames": Measure("frames that the workflow promises", "frames", 1, inf),
    "expected_fps": Measure("frames a second that it promises", "1/s", 0, inf),
    "expected_width": Measure("width that it promises", "pixels", 1, inf),
    "expected_height": Measure("height that it promises", "pixels", 1, inf),
}

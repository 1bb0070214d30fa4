"""The measures of the gates: meaning, unit and range of each. The formula is in the docstring of the function named with it.

Gate profiles may only name measures of these lists.
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
    "frames": Measure("pictures that the file shows one after another", "pictures", 1, inf),
    "width": Measure("of the picture as it is shown, upright", "pixels", 1, inf),
    "height": Measure("of the picture as it is shown, upright", "pixels", 1, inf),
    "non_finite": Measure("NaN in the model's output, or in a floating-point file", FLAG),
    "contrast": Measure("standard deviation of luma (picture.contrast)", "levels", 0, 127.5),
    "dark": Measure("pixels with luma under 25 (picture.dark_fraction)"),
    "pitch_black": Measure("pixels with luma under 10 (picture.dark_fraction)"),
    "over_exposed": Measure("pixels with every channel at 250 or more (picture.over_exposed_fraction)"),
    "flat": Measure("pixels within 6 levels of their 3x3 median (picture.flat_fraction)"),
    "sharpness": Measure("99th percentile of the Sobel gradient (picture.sharpness)", "levels", 0, 1443),
    "crispness": Measure("sharpness over the sharpness at half size (picture.crispness)", "ratio", 0, inf),
    "bars": Measure("share of the height or width taken by black bars (picture.bars)"),
    "duplicate": Measure("bits by which the nearest other keyframe's hash differs (picture.perceptual_hash)", "bits", 0, 64),
}
VIDEO = {
    "undecodable": Measure("the file cannot be decoded to its end, or has another codec or pixel format than promised", FLAG),
    "frames": Measure("decoded frames", "frames", 1, inf),
    "fps": Measure("frames a second, as the header has it where frames come so (timing.Timing)", "1/s", 0, inf),
    "width": Measure("of the frames as a player shows them", "pixels", 1, inf),
    "height": Measure("of the frames as a player shows them", "pixels", 1, inf),
    "uneven": Measure("frames are not evenly spaced in time, rounding apart (timing.Timing)", FLAG),
    "too_long": Measure("more frames than gates read", FLAG),
    "non_finite": Measure("NaN in the model's output", FLAG),
    "reach": Measure("largest change of any frame from frame 0 (clip.most_changed)", "levels", 0, 255),
    "motion_mean": Measure("mean over frames of the change from the frame before (clip.most_changed)", "levels", 0, 255),
    "drawings": Measure("different drawings in the clip (clip.Reduced)", "drawings", 1, inf),
    "hold": Measure("longest run of frames that show one drawing, as a share of the clip (motion.longest_hold)"),
    "cut": Measure("score of the most cut-like place; 1 is a cut (motion.strongest_cut)", "ratio", 0, inf),
    "flicker": Measure("the picture's light going back and forth between drawings (light.flicker)", "percent", 0, 8),
    "texture_flicker": Measure("the median cell's light going back and forth by itself (light.flicker)", "levels", 0, 25),
    "flashes": Measure("most general flashes in any second (light.flashes)", "flashes", 0, inf),
    "red_flashes": Measure("most red flashes in any second (light.flashes)", "flashes", 0, inf),
    "black_frames": Measure("frames that are dark on 98 % of their area, without fades (light.black_frames)", "frames", 0, inf),
    "pitch_black_frames": Measure("as black_frames, with luma under 10", "frames", 0, inf),
    "colour_drift": Measure("how much the palette changes; 1 is a drift (light.drift)", "ratio", 0, inf),
    "exposure_drift": Measure("how much CIELAB's L changes (light.drift)", "L", 0, 100),
    "bars": Measure("share of the height or width that is black through the whole clip (picture.bars)"),
    "over_exposed": Measure("median over frames of the burnt-out share (picture.over_exposed_fraction)"),
    "over_exposed_rise": Measure("over_exposed minus the keyframe's, if there is a keyframe", "share", -1, 1),
    "flat": Measure("median over 12 frames (picture.flat_fraction)"),
    "contrast": Measure("median over frames (picture.contrast)", "levels", 0, 127.5),
    "sharpness": Measure("median over 12 frames (picture.sharpness)", "levels", 0, 1443),
    "sharpness_ratio": Measure("sharpness over the keyframe's", "ratio", 0, inf),
    "first_frame_ssim": Measure("worst of 8x8 tiles against the keyframe (pair.likeness)", "SSIM", -1, 1),
    "first_frame_delta_e": Measure("mean colour difference to the keyframe (pair.likeness)", "Delta E", 0, inf),
    "first_frame_tile_delta_e": Measure("colour difference of the worst tile (pair.likeness)", "Delta E", 0, inf),
    "last_frame_ssim": Measure("as first_frame_ssim, where a last frame is given", "SSIM", -1, 1),
    "last_frame_delta_e": Measure("as first_frame_delta_e", "Delta E", 0, inf),
    "last_frame_tile_delta_e": Measure("as first_frame_tile_delta_e", "Delta E", 0, inf),
    "source_ssim": Measure("worst of 8x8 tiles of any frame, reduced, against its source (source.Beside)", "SSIM", -1, 1),
    "source_delta_e": Measure("mean colour difference of the worst frame, reduced, to its source (source.Beside)", "Delta E", 0, inf),
    "source_tile_delta_e": Measure("colour difference of the worst tile of any frame, reduced, to its source", "Delta E", 0, inf),
    "source_flicker": Measure("mean over frames of how much the light of a tile changes beside its source's", "levels", 0, 255),
    "source_sharper": Measure("sharpness over that of the source enlarged by Lanczos (source.sharper)", "ratio", 0, inf),
}
WANTED = {  # measures that an expectation adds, for rules with `differs_from`
    "expected_frames": Measure("frames that the workflow promises", "frames", 1, inf),
    "expected_fps": Measure("frames a second that the workflow promises", "1/s", 0, inf),
    "expected_width": Measure("width that the workflow promises", "pixels", 1, inf),
    "expected_height": Measure("height that the workflow promises", "pixels", 1, inf),
}
TOLD = {  # there only where there is something to tell (rules.TOLD), so that no profile can look at it
    "hdr": Measure("the clip is for HDR screens, and is judged as if it were SDR", FLAG),
}

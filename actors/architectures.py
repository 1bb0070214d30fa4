"""Names of the architectures that Tower tells model files by, and what tells them."""

SD, SD2, SDXL, REFINER = "Stable Diffusion 1.5", "Stable Diffusion 2", "Stable Diffusion XL", "Stable Diffusion XL refiner"
SD3, FLUX, WAN, LTX = "Stable Diffusion 3", "Flux", "Wan", "LTX-Video"
BY_WIDTH = {768: SD, 1024: SD2, 2048: SDXL, 1280: REFINER}  # of the text that the UNet attends to
LTX_SIZES = {(28, 2048): "2B", (48, 4096): "13B"}  # (layers, width) of the transformer

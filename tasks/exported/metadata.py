"""What a deployer needs besides the graph, in words inside the file: how an image file becomes the model's input.

It says of `serving/images.py` what a program in another language has to do to see the same pixels. A change there that
changes a pixel changes this, too, and SCHEMA_VERSION.
"""

import json

import onnx

SCHEMA_VERSION = "1"  # that serving/model.py reads
DOCUMENTATION = {
    "images": "uint8 [batch, height, width, channels]: images as decoded; the metadata says how a file becomes one.",
    "logits": "float32 [batch, classes]: one for each class, in the order of class_names in the metadata.",
    "probabilities": "float32 [batch, classes]: the softmax of the logits, each divided by temperature in the "
    "metadata; that is 1 unless the model is calibrated.",
}
MODEL = (
    "An image classifier, for any batch size. The metadata says what it is and where it comes from; `preprocessing` "
    "lists the keys that say, step by step, how an image file becomes an input."
)
GREY = "L = R * 299/1000 + G * 587/1000 + B * 114/1000, rounded"
STEPS = {
    "exif_orientation": "applied: the image is turned and mirrored upright, as tag 0x0112 says with 1 to 8",
    "bit_depth": "8: 16-bit grey is divided by 257 and rounded down; of other 16-bit values the upper 8 bits are taken",
    "alpha": "composited on black: each colour value is multiplied by alpha / 255 and rounded",
    "color_order": "RGB: palettes and other colour spaces are converted, grey is repeated; colour profiles are ignored",
    "resize_box": "",  # one of BOXES
    "resampling": "bilinear with antialiasing, Pillow's: a triangle filter around the centre of each new pixel, on "
    "each side as wide as the scale in old pixels, 1 at least, cut off at the edge of the image and normalised to 1; "
    "along width and height one after the other, in either order, rounded to uint8 each time",
    "value_range": "0 to 255, uint8: they are scaled and normalised inside the model",
    "input_layout": "NHWC: [batch, height, width, channels], height and width as the input `images` has them",
}
BOXES = {
    "stretch": "stretch: the whole image becomes the input, whatever its proportions",
    "crop": "crop: the largest box of the input's proportions in the middle of the image, at fractions of a pixel, "
    "becomes the input; the filter reads beyond the box, but not beyond the image",
}


def preprocessing(image_shape: list[int], resize: str) -> dict[str, str]:
    """Say how an image file becomes an input of shape [H, W, C]: a key for each step, and the order of the steps."""
    steps = STEPS | {"resize_box": BOXES[resize]}
    if image_shape[2] == 1:
        steps["color_order"] = f"grey: of {steps['color_order']}; then {GREY}"
    return {"preprocessing": json.dumps(list(steps)), "resize": resize, "schema_version": SCHEMA_VERSION, **steps}


def document(exported: onnx.ModelProto) -> None:
    """Describe the model, its input and its outputs where tools that show a model look."""
    exported.doc_string = MODEL
    for value in (*exported.graph.input, *exported.graph.output):
        value.doc_string = DOCUMENTATION[value.name]

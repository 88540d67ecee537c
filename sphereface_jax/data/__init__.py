"""Where faces come from, and the pipeline that feeds them to a training step."""

import os

# A few kilobytes may claim a gigapixel, by damage or by design. OpenCV refuses more than this many
# pixels, which it reads when it is first imported, at once; by its own default, more than 2^30.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 27))

"""From raw files to a registered model: one module per stage, and what the stages share."""

import atexit
import gc

# Importing TensorFlow or MLflow makes a million objects that stay. Looking through them for garbage
# again and again took a quarter of the import's time, and once more at the end up to a second.
gc.set_threshold(20_000)
atexit.register(gc.freeze)

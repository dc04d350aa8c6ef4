"""Real LiteRT files, each of a line of TensorFlow."""

import math


def litert_file(tf, answer, shape=(28, 28, 1)):
    """The file of a network that answers `answer(pixels)`: float32, (n, height * width * channels).

    For pictures in colour they are (n, height * width, 3).
    """
    flat = (-1, math.prod(shape)) if shape[2] == 1 else (-1, shape[0] * shape[1], shape[2])

    class Network(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.uint8)])
        def __call__(self, images):
            return answer(tf.reshape(tf.cast(images, tf.float32), flat))

    network = Network()
    concrete = network.__call__.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], network).convert()

"""Real LiteRT files, each of a line of TensorFlow."""


def litert_file(tf, answer):
    """The file of a network that answers `answer(pixels)`, which are (n, 784) float32."""

    class Network(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 28, 28, 1), tf.uint8)])
        def __call__(self, images):
            return answer(tf.reshape(tf.cast(images, tf.float32), (-1, 28 * 28)))

    network = Network()
    concrete = network.__call__.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], network).convert()

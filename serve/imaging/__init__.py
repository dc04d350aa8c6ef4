"""Image normalisation: from a grey array to a 28x28 image like those of MNIST."""

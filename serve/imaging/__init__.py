"""From a grey array to the 28x28 image that the models know."""

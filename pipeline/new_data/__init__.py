"""`python -m pipeline.new_data`: from labelled pictures to the definition of a data set."""

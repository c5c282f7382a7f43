"""What is checked of a machine before it is trusted with a training, and what to do where it falls short."""

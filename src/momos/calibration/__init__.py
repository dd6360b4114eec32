"""What forward passes tell about a model: sensitivities, and where a scale can be folded."""

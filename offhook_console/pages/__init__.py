"""The pages: one module for each, which reads, then renders a template."""

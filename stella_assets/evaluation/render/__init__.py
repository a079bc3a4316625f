"""The evaluation report as HTML, Markdown and plots."""

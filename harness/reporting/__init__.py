"""Statistics, tables, figures and pages, as pure functions of the table of returns."""

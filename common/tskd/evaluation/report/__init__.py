"""The report of evaluated runs: tables, figures, pictures and pages."""

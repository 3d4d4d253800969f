"""What the answers mean: rates, intervals, figures and the report, from tables alone. No model is ever seen here."""

"""A scaling law measured here: small trainings, a fit, and a prediction that is put to the test."""

"""Tests, laid out like the packages they test; end-to-end tests over real processes live in e2e/."""

"""Results of a made-up run, as the tables of reports have them."""

from tests.report.test_report_tables import results  # noqa: F401

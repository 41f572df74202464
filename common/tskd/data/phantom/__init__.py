"""A virtual cohort of abdominal MR: anatomy, scanner, and the files a hospital would have."""

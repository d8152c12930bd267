# Rscript errors.R DATABASE EXPERIMENT: what failed, and how.

source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "database.R"))

results <- read_results(arguments[[2]])
write_table(results[
  which(results$error_occurred == 1),
  c("incident_id", "narrative_type", "detected", "error_message", "processed_at")
])

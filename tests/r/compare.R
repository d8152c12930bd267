# Rscript compare.R DATABASE EXPERIMENT EXPERIMENT: both measured on the narratives that both have answered.

source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "database.R"))

one <- read_results(arguments[[2]])
other <- read_results(arguments[[3]])
key <- c("incident_id", "narrative_type")
answers <- function(results) results[results$error_occurred == 0, c(key, "detected", "manual_flag_ind")]
both <- merge(answers(one), answers(other), by = key, suffixes = c("_one", "_other"))
write_table(data.frame(
  rows_one = nrow(one),
  rows_other = nrow(other),
  common = nrow(both),
  both_yes = sum(both$detected_one == 1 & both$detected_other == 1),
  both_no = sum(both$detected_one == 0 & both$detected_other == 0),
  only_one = sum(both$detected_one == 1 & both$detected_other == 0),
  only_other = sum(both$detected_one == 0 & both$detected_other == 1),
  right_one = sum(both$detected_one == both$manual_flag_ind_one, na.rm = TRUE),
  right_other = sum(both$detected_other == both$manual_flag_ind_other, na.rm = TRUE),
  f1_one = measure(one)$f1,
  f1_other = measure(other)$f1
))

# Rscript disagreements.R DATABASE EXPERIMENT: answers that differ from the manual label, with the text to read again.

source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "database.R"))

write_table(read_table(
  "SELECT r.incident_id, r.narrative_type, r.manual_flag_ind, r.detected, r.confidence, r.indicators, r.rationale,
          LENGTH(s.narrative_text) AS characters
   FROM narrative_results r
   LEFT JOIN source_narratives s ON s.incident_id = r.incident_id AND s.narrative_type = r.narrative_type
   WHERE r.experiment_id = ? AND r.error_occurred = 0 AND r.detected <> r.manual_flag_ind
   ORDER BY r.incident_id, r.narrative_type, r.result_id",
  arguments[[2]]
))

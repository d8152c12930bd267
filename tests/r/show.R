# Rscript show.R DATABASE EXPERIMENT: the prompts it used, and what its results amount to.

source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "database.R"))

experiment <- read_table(
  "SELECT experiment_name, model_name, temperature, system_prompt, user_template, prompt_version, prompt_author
   FROM experiments WHERE experiment_id = ?",
  arguments[[2]]
)
narratives <- read_table("SELECT COUNT(*) AS narratives, COUNT(manual_flag_ind) AS with_label FROM source_narratives")
write_table(cbind(experiment, narratives, measure(read_results(arguments[[2]]))))

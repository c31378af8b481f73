/* diag MODEL SCRATCH: dumps of the tensors of a pass, and what tells two of them apart. */
#include "check.h"

static void dump(const char *model, const char *text, const char *path) {
  static const char *const taps[] = {"*layers.0.*", "logits*"};
  pyrex_dump_options_t options = {0};
  options.struct_size = sizeof options;
  options.dtype = "f32";
  options.taps = taps;
  options.num_taps = 2;
  pyrex_prompt_t *prompt = ask(text);
  uint64_t num_tensors = 0;
  OK(pyrex_dump(model, prompt, &options, path, &num_tensors));
  CHECK(num_tensors > 1);
  pyrex_prompt_free(prompt);
}

static size_t num_failures(const char *ours, const char *theirs) {
  pyrex_comparison_t *comparison = NULL;
  size_t num_tensors, num_failures, found = 0;
  OK(pyrex_compare(ours, theirs, NULL, &comparison));
  OK(pyrex_comparison_count(comparison, &num_tensors, &num_failures));
  OK(pyrex_comparison_count(comparison, NULL, NULL));
  for (size_t i = 0; i < num_tensors; i++) {
    pyrex_compared_t compared = {0};
    compared.struct_size = sizeof compared;
    OK(pyrex_comparison_at(comparison, i, &compared));
    CHECK(strlen(compared.name) > 0);
    CHECK((compared.verdict != NULL) == (compared.finding == PYREX_COMPARED_FIGURES));
    if (strcmp(ours, theirs) == 0) {
      CHECK(compared.finding == PYREX_COMPARED_FIGURES && strcmp(compared.verdict, "match") == 0);
      CHECK(compared.rel_l2 == 0 && compared.max_abs == 0 && compared.cosine > 0.999);
    }
    found += !compared.passes;
  }
  CHECK(num_tensors > 1 && found == num_failures);
  pyrex_compared_t compared = {0};
  compared.struct_size = sizeof compared;
  REFUSED(PYREX_INVALID_REQUEST, "tensor_idx", pyrex_comparison_at(comparison, num_tensors, &compared));
  pyrex_comparison_free(comparison);
  return num_failures;
}

int main(int argc, char **argv) {
  const char *model = argument(argc, argv, 1, "the folder of a model");
  const char *scratch = argument(argc, argv, 2, "a folder to write to");
  char ours[4096], theirs[4096], nowhere[4096];
  snprintf(ours, sizeof ours, "%s/ours.safetensors", scratch);
  snprintf(theirs, sizeof theirs, "%s/theirs.safetensors", scratch);
  snprintf(nowhere, sizeof nowhere, "%s/nowhere/dump.safetensors", scratch);
  dump(model, "Describe this image.", ours);
  dump(model, "Describe this picture, and take your time.", theirs);
  CHECK(num_failures(ours, ours) == 0);
  CHECK(num_failures(ours, theirs) > 0);

  pyrex_comparison_t *comparison = (pyrex_comparison_t *)&comparison;
  CHECK(pyrex_compare(ours, nowhere, NULL, &comparison) != PYREX_OK && comparison == NULL);
  CHECK(pyrex_compare(ours, theirs, nowhere, &comparison) != PYREX_OK && comparison == NULL);
  pyrex_prompt_t *prompt = ask("Describe this image.");
  CHECK(pyrex_dump(model, prompt, NULL, nowhere, NULL) != PYREX_OK);
  CHECK(pyrex_dump(scratch, prompt, NULL, ours, NULL) != PYREX_OK);
  pyrex_prompt_free(prompt);
  remove(ours);
  remove(theirs);
  return 0;
}

/** What is wrong with a pod's templates, so that it is told when the pod is made and not when its container starts. */
import { PREFIX } from "#core/annotations.ts";
import type { PodOptions } from "#core/pod-options.ts";
import { parseTemplate } from "#core/template/template.ts";

/** A sentence for each, with line and column. */
export function templateProblems({ secrets }: Partial<PodOptions>): readonly string[] {
  return (secrets ?? []).flatMap(({ name, request }) => {
    // What a ConfigMap holds, and will hold, is not known here; the sidecar says what is wrong with it.
    if (request.kind !== "template" || !("text" in request)) return [];
    try {
      parseTemplate(request.text, { name });
      return [];
    } catch (error) {
      return [`${PREFIX}template.${error instanceof Error ? error.message : name}`];
    }
  });
}

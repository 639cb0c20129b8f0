/**
 * Go's text/template, as far as service specs, configs and secrets can use it: actions, pipelines, variables, `if`, `with`,
 * `range`, `define`, all functions. Missing are complex numbers, channels and methods, of which the data has none.
 */
export { CallError, ofStrings, type TemplateFunction } from "./template/builtins.ts";
export { expand, type TemplateFunctions } from "./template/evaluate.ts";
export { GoMap, GoStruct, type TemplateValue } from "./template/values.ts";

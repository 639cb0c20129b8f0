/** Secrets and configs assigned to this node, in memory only: they never touch this node's disk. */
import type { Config, Secret, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { ResourceType } from "#proto/docker/swarmkit/types_pb.js";
import type { Dependencies } from "../types.ts";

export class DependencyStore {
  #secrets = new Map<string, Secret>();
  #configs = new Map<string, Config>();

  /** Forgets everything; a complete set follows. */
  reset(): void {
    this.#secrets.clear();
    this.#configs.clear();
  }

  putSecret(secret: Secret): void {
    this.#secrets.set(secret.id, secret);
  }

  putConfig(config: Config): void {
    this.#configs.set(config.id, config);
  }

  removeSecret(id: string): void {
    this.#secrets.delete(id);
  }

  removeConfig(id: string): void {
    this.#configs.delete(id);
  }

  /**
   * What one task may see: only what its spec references. A driver-backed secret that must not be reused
   * comes as `<secret id>.<task id>`.
   */
  of(task: Task): Dependencies {
    const { secrets, configs } = references(task);
    return {
      secret: (id) => (secrets.has(id) ? (this.#secrets.get(`${id}.${task.id}`) ?? this.#secrets.get(id)) : undefined),
      config: (id) => (configs.has(id) ? this.#configs.get(id) : undefined),
    };
  }

  /** Whether everything that the task references is here. */
  satisfies(task: Task): boolean {
    const { secrets, configs } = references(task);
    const view = this.of(task);
    return (
      [...secrets].every((id) => view.secret(id) !== undefined) &&
      [...configs].every((id) => view.config(id) !== undefined)
    );
  }
}

function references(task: Task): { secrets: Set<string>; configs: Set<string> } {
  const secrets = new Set<string>();
  const configs = new Set<string>();
  for (const reference of task.spec?.resourceReferences ?? []) {
    if (reference.resourceType === ResourceType.SECRET) secrets.add(reference.resourceId);
    if (reference.resourceType === ResourceType.CONFIG) configs.add(reference.resourceId);
  }
  if (task.spec?.runtime.case === "container") {
    for (const reference of task.spec.runtime.value.secrets) secrets.add(reference.secretId);
    for (const reference of task.spec.runtime.value.configs) configs.add(reference.configId);
  }
  return { secrets, configs };
}

/** Service specs as Docker's CLI sends them: one with every field, and random ones. */

export const fullService = {
  Name: "full",
  Labels: { l: "1" },
  TaskTemplate: {
    ContainerSpec: {
      Image: "nginx:alpine",
      Labels: { cl: "2" },
      Command: ["/bin/sh"],
      Args: ["-c", "true"],
      Hostname: "h-{{.Task.Slot}}",
      Env: ["A=b"],
      Dir: "/w",
      User: "1:2",
      Groups: ["5"],
      Privileges: {
        CredentialSpec: null,
        SELinuxContext: { Disable: false, User: "u", Role: "r", Type: "t", Level: "l" },
        Seccomp: { Mode: "custom", Profile: "e30=" },
        AppArmor: { Mode: "disabled" },
        NoNewPrivileges: true,
      },
      Init: false,
      StopSignal: "SIGINT",
      TTY: true,
      OpenStdin: true,
      ReadOnly: true,
      Mounts: [
        {
          Type: "volume",
          Source: "v1",
          Target: "/v",
          VolumeOptions: {
            NoCopy: true,
            Labels: { x: "y" },
            Subpath: "s",
            DriverConfig: { Name: "local", Options: { o: "p" } },
          },
        },
        { Type: "tmpfs", Target: "/t", TmpfsOptions: { SizeBytes: 1000000, Mode: 448 } },
        {
          Type: "bind",
          Source: "/tmp",
          Target: "/b",
          ReadOnly: true,
          Consistency: "cached",
          BindOptions: {
            Propagation: "rslave",
            NonRecursive: true,
            CreateMountpoint: true,
            ReadOnlyNonRecursive: true,
            ReadOnlyForceRecursive: true,
          },
        },
      ],
      StopGracePeriod: 3000000001,
      Healthcheck: {
        Test: ["CMD-SHELL", "true"],
        Interval: 2000000000,
        Timeout: 1000000000,
        StartPeriod: 4000000000,
        StartInterval: 5000000000,
        Retries: 4,
      },
      Hosts: ["1.1.1.1 a b"],
      DNSConfig: { Nameservers: ["1.2.3.4"], Search: ["ex.org"], Options: ["ndots:2"] },
      Secrets: [{ File: { Name: "sec1", UID: "0", GID: "7", Mode: 292 }, SecretID: "sid", SecretName: "sec1" }],
      Configs: [
        { File: { Name: "/etc/c", UID: "0", GID: "0", Mode: 288 }, ConfigID: "cid", ConfigName: "c" },
        { Runtime: {}, ConfigID: "cid2", ConfigName: "c2" },
      ],
      Isolation: "default",
      Sysctls: { "net.core.somaxconn": "10" },
      CapabilityAdd: ["CAP_NET_ADMIN"],
      CapabilityDrop: ["CAP_CHOWN"],
      Ulimits: [{ Name: "nofile", Hard: -1, Soft: 10 }],
      OomScoreAdj: -5,
    },
    Resources: {
      Limits: { NanoCPUs: 500000000, MemoryBytes: 67108864, Pids: 20 },
      Reservations: {
        NanoCPUs: 1,
        MemoryBytes: 2,
        GenericResources: [
          { NamedResourceSpec: { Kind: "gpu", Value: "uuid1" } },
          { DiscreteResourceSpec: { Kind: "ssd", Value: 3 } },
        ],
      },
    },
    RestartPolicy: { Condition: "on-failure", Delay: 2000000000, MaxAttempts: 3, Window: 10000000000 },
    Placement: {
      Constraints: ["node.role==manager"],
      Preferences: [{ Spread: { SpreadDescriptor: "node.labels.x" } }],
      MaxReplicas: 2,
      Platforms: [{ Architecture: "amd64", OS: "linux" }, { OS: "linux" }],
    },
    Networks: [{ Target: "n1", Aliases: ["al"], DriverOpts: { d: "o" } }],
    LogDriver: { Name: "json-file", Options: { "max-size": "1m" } },
    ForceUpdate: 7,
    Runtime: "container",
  },
  Mode: { Replicated: { Replicas: 2 } },
  UpdateConfig: {
    Parallelism: 2,
    Delay: 3000000000,
    FailureAction: "rollback",
    Monitor: 4000000000,
    MaxFailureRatio: 0.1,
    Order: "start-first",
  },
  RollbackConfig: { Parallelism: 0, FailureAction: "continue", MaxFailureRatio: 0, Order: "stop-first" },
  Networks: [{ Target: "legacy" }],
  EndpointSpec: {
    Mode: "dnsrr",
    Ports: [
      { Name: "p", Protocol: "sctp", TargetPort: 80, PublishedPort: 8081, PublishMode: "host" },
      { Protocol: "udp", TargetPort: 90, PublishMode: "ingress" },
    ],
  },
};

/** A spec that has each part of the full one or has it not. Identity fields that Docker always writes stay. */
export function randomService(random: () => number): Record<string, unknown> {
  const always = new Set(["Labels", "TaskTemplate", "ContainerSpec", "Isolation", "ForceUpdate", "Runtime", "Mode"]);
  const modes = [
    { Replicated: { Replicas: Math.floor(random() * 5) } },
    { Global: {} },
    { GlobalJob: {} },
    { ReplicatedJob: { MaxConcurrent: 1, TotalCompletions: Math.floor(random() * 9) } },
  ];
  const optional = new Set([
    ...Object.keys(fullService),
    ...Object.keys(fullService.TaskTemplate),
    ...Object.keys(fullService.TaskTemplate.ContainerSpec),
  ]);
  const pick = (value: unknown, depth: number): unknown => {
    if (typeof value !== "object" || value === null || Array.isArray(value) || depth > 2) return value;
    return Object.fromEntries(
      Object.entries(value)
        .filter(([key]) => !optional.has(key) || always.has(key) || random() < 0.6)
        .map(([key, entry]) => [
          key,
          key === "TaskTemplate" || key === "ContainerSpec" ? pick(entry, depth + 1) : entry,
        ]),
    );
  };
  const spec = pick(fullService, 0) as Record<string, unknown>;
  return { ...spec, Mode: modes[Math.floor(random() * modes.length)] };
}

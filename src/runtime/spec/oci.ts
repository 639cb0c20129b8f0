/** The parts of the OCI runtime specification that Skein writes. Names and meanings are the specification's. */
export interface OciSpec {
  ociVersion: string;
  process: OciProcess;
  root: { path: string; readonly: boolean };
  hostname?: string;
  annotations?: Record<string, string>;
  mounts: OciMount[];
  linux: {
    cgroupsPath: string;
    namespaces: { type: string; path?: string }[];
    devices: OciDevice[];
    resources: OciResources;
    sysctl: Record<string, string>;
    maskedPaths: string[];
    readonlyPaths: string[];
    seccomp?: object;
    rootfsPropagation?: string;
  };
}

export interface OciProcess {
  terminal: boolean;
  args: string[];
  env: string[];
  cwd: string;
  user: OciUser;
  capabilities: Record<"bounding" | "effective" | "permitted", string[]> & { inheritable?: string[] };
  noNewPrivileges: boolean;
  rlimits: { type: string; soft: number; hard: number }[];
  oomScoreAdj?: number;
}

export interface OciUser {
  uid: number;
  gid: number;
  additionalGids?: number[];
}

export interface OciMount {
  destination: string;
  type: string;
  source: string;
  options: string[];
}

export interface OciDevice {
  path: string;
  type: string;
  major: number;
  minor: number;
  fileMode?: number;
  uid?: number;
  gid?: number;
}

export interface OciDeviceRule {
  allow: boolean;
  type?: string;
  major?: number;
  minor?: number;
  access: string;
}

export interface OciResources {
  devices?: OciDeviceRule[];
  memory?: {
    limit?: number;
    swap?: number;
    reservation?: number;
    disableOOMKiller?: boolean;
    swappiness?: number;
  };
  cpu?: {
    shares?: number;
    quota?: number;
    period?: number;
    cpus?: string;
    mems?: string;
    realtimePeriod?: number;
    realtimeRuntime?: number;
  };
  pids?: { limit: number };
  blockIO?: {
    weight?: number;
    weightDevice?: { major: number; minor: number; weight: number }[];
    throttleReadBpsDevice?: OciRate[];
    throttleWriteBpsDevice?: OciRate[];
    throttleReadIOPSDevice?: OciRate[];
    throttleWriteIOPSDevice?: OciRate[];
  };
}

export interface OciRate {
  major: number;
  minor: number;
  rate: number;
}

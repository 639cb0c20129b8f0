/** As much of dockerode as the tests use. */
declare module "dockerode" {
  interface Stats {
    State: { ExitCode: number };
    Name: string;
  }
  interface Exec {
    start(options: object): Promise<NodeJS.ReadWriteStream>;
    inspect(): Promise<{ ExitCode: number }>;
  }
  interface Container {
    readonly id: string;
    attach(options: object): Promise<NodeJS.ReadWriteStream>;
    wait(options?: object): Promise<{ StatusCode: number }>;
    start(): Promise<void>;
    logs(options: object): Promise<Buffer>;
    inspect(): Promise<Stats>;
    remove(options?: object): Promise<void>;
    exec(options: object): Promise<Exec>;
  }
  export default class Docker {
    constructor(options: { socketPath: string; version?: string });
    readonly modem: {
      demuxStream(stream: NodeJS.ReadableStream, out: NodeJS.WritableStream, err: NodeJS.WritableStream): void;
    };
    createContainer(options: object): Promise<Container>;
    listContainers(): Promise<object[]>;
    getEvents(options: object): Promise<NodeJS.ReadableStream>;
    createVolume(options: object): Promise<object>;
    listVolumes(): Promise<{ Volumes: object[] }>;
    getVolume(name: string): { remove(): Promise<void>; inspect(): Promise<object> };
    listNetworks(options: object): Promise<{ Name: string }[]>;
    version(): Promise<{ ApiVersion: string }>;
    info(): Promise<{ Swarm: { LocalNodeState: string } }>;
    listServices(): Promise<object[]>;
    df(): Promise<{ Images: object[] }>;
  }
}

from pysyncobj.config import FAIL_REASON as FAIL_REASON, SyncObjConf as SyncObjConf
from pysyncobj.syncobj import SyncObj as SyncObj

package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	dockerref "github.com/distribution/reference"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/credentialprovider"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"
)

// lockStripes is how many images can be looked up in the records at once.
const lockStripes = 16

// AccessConfig configures an Access.
type AccessConfig struct {
	// Dir is the kubelet's root. The records lie in its folder image_manager, as upstream's do.
	Dir string
	// Policy is one of upstream's four imagePullCredentialsVerificationPolicies;
	// NeverVerifyPreloadedImages if empty.
	Policy string
	// Allowlist names images that are for all Pods, for the policy NeverVerifyAllowlistedImages.
	Allowlist []string
	Images    runtimeapi.ImageServiceClient
}

// Access knows which Pods may use an image that is on the node: those with the
// credentials that it was pulled with (KEP-2535). It keeps records of pulls on
// disk, since the image, too, is still there after a restart. An image without a
// record was imported or preloaded. A nil *Access lets every Pod use every image.
type Access struct {
	records pullmanager.ImagePullManager
	files   pullmanager.PullRecordsAccessor // that records are written to
	policy  pullmanager.ImagePullPolicyEnforcer
	intents string // directory

	mu sync.Mutex
	// running is how many pulls run, begun how many ever began.
	running, begun int
}

// NewAccess reads the records that an earlier Access left. An image whose pull
// was interrupted by the end of the process, and is there nevertheless, is for
// nobody who does not pull it again.
func NewAccess(ctx context.Context, cfg AccessConfig) (*Access, error) {
	policy := kubeletconfig.ImagePullCredentialsVerificationPolicy(cfg.Policy)
	if policy == "" {
		policy = kubeletconfig.NeverVerifyPreloadedImages
	}
	enforcer, err := pullmanager.NewImagePullCredentialVerificationPolicy(policy, cfg.Allowlist)
	if err != nil {
		return nil, fmt.Errorf("reading the policy for images that are present: %w", err)
	}
	files, err := pullmanager.NewFSPullRecordsAccessor(klog.FromContext(ctx), cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the records of image pulls in %s: %w", cfg.Dir, err)
	}
	if err := settle(ctx, files, cfg.Images); err != nil {
		return nil, err
	}
	// It would ask the image service what came of intents, of which there are none.
	records, err := pullmanager.NewImagePullManager(ctx, files, enforcer, nil, lockStripes)
	if err != nil {
		return nil, fmt.Errorf("reading the records of image pulls in %s: %w", cfg.Dir, err)
	}
	intents := filepath.Join(cfg.Dir, "image_manager", "pulling")
	return &Access{records: records, files: files, policy: enforcer, intents: intents}, nil
}

// settle turns the intents of pulls that were interrupted into records, if the image is there, and
// removes them.
func settle(ctx context.Context, files pullmanager.PullRecordsAccessor, service runtimeapi.ImageServiceClient) error {
	log := klog.FromContext(ctx)
	intents, err := files.ListImagePullIntents()
	if err != nil { // one that cannot be read goes on to forbid its image, which a pull settles
		log.Error(err, "Reading what images were being pulled failed")
	}
	if len(intents) == 0 {
		return nil
	}
	list, err := service.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return fmt.Errorf("listing images, to see what came of interrupted pulls: %w", err)
	}
	for _, intent := range intents {
		for _, image := range list.GetImages() {
			if !named(image, intent.Image) {
				continue
			}
			if err := recordInterrupted(log, files, intent.Image, image.Id); err != nil {
				return err
			}
		}
		if err := files.DeleteImagePullIntent(log, intent.Image); err != nil {
			return fmt.Errorf("removing the record of an interrupted pull of image %s: %w", intent.Image, err)
		}
	}
	return nil
}

// recordInterrupted records the image under its name, and no credentials for it. Upstream's record
// of an interrupted pull has no name, and so looks as if the image had been imported under this
// name and pulled under another. It is written past pullmanager, whose rule for merging leaves a
// record as it is that gets no credentials.
func recordInterrupted(log klog.Logger, files pullmanager.PullRecordsAccessor, name, id string) error {
	record, _, err := files.GetImagePulledRecord(id)
	if err != nil || record == nil {
		record = &kubeletconfig.ImagePulledRecord{ImageRef: id}
	}
	if _, known := record.CredentialMapping[repository(name)]; known {
		return nil
	}
	if record.CredentialMapping == nil {
		record.CredentialMapping = map[string]kubeletconfig.ImagePullCredentials{}
	}
	record.CredentialMapping[repository(name)] = kubeletconfig.ImagePullCredentials{}
	record.LastUpdatedTime = metav1.Now()
	if err := files.WriteImagePulledRecord(log, record); err != nil {
		return fmt.Errorf("recording that image %s was pulled: %w", name, err)
	}
	return nil
}

// named reports whether the runtime has the image under this canonical name.
func named(image *runtimeapi.Image, name string) bool {
	return slices.Contains(image.GetRepoTags(), name) || slices.Contains(image.GetRepoDigests(), name)
}

// repository is a canonical name without tag and digest, by which records tell apart who may use an
// image.
func repository(name string) string {
	ref, err := dockerref.ParseDockerRef(name)
	if err != nil {
		return name
	}
	return ref.Name()
}

// canonical is the name under which the runtime lists an image, and under which
// its pulls are recorded: a Pod may write busybox, another docker.io/library/busybox:latest.
func canonical(name string) string {
	ref, err := dockerref.ParseDockerRef(name)
	if err != nil {
		return name
	}
	return ref.String()
}

// allows reports whether the Pod may use the image, which the runtime has, without asking the
// registry. Credentials that cannot be read allow nothing; the pull that follows says what is
// wrong with them.
func (a *Access) allows(ctx context.Context, r request, name string, image *runtimeapi.Image) bool {
	if a == nil {
		return true
	}
	// An allowlist names images as Pods write them. The other policies ask the records, with true.
	if !a.policy.RequireCredentialVerificationForImage(r.image, true) {
		return true
	}
	name = canonical(name)
	if a.imported(name, image) && !a.policy.RequireCredentialVerificationForImage(name, false) {
		return true
	}
	must, err := a.records.MustAttemptImagePull(ctx, name, image.Id, r.sources)
	return err == nil && !must
}

// sources are where the Pod's credentials are from. It is a pullmanager.GetPodCredentials.
func (r request) sources() (
	secrets []kubeletconfig.ImagePullSecret, account *kubeletconfig.ImagePullServiceAccount, err error,
) {
	found, err := r.credentials()
	for i := range found {
		c := recorded(&found[i])
		secrets = append(secrets, c.KubernetesSecrets...)
		if account == nil && len(c.KubernetesServiceAccounts) > 0 { // a Pod has one
			account = &c.KubernetesServiceAccounts[0]
		}
	}
	return secrets, account, err
}

// imported reports whether nobody pulled the image under its name, but somebody under another. One
// image has many names, but only one record; upstream's policies take each of its names for one
// that was pulled.
func (a *Access) imported(name string, image *runtimeapi.Image) bool {
	// By its ID, or by a short name that the runtime completes, a Pod reaches images that were
	// pulled under another name.
	if !named(image, name) {
		return false
	}
	// First the intent, then the record: a pull that ends in between has written the record before.
	if intended, err := a.files.ImagePullIntentExists(name); err != nil || intended {
		return false
	}
	record, _, err := a.files.GetImagePulledRecord(image.Id)
	if err != nil || record == nil {
		return false // records decides
	}
	_, pulled := record.CredentialMapping[repository(name)]
	return !pulled
}

// pulling records that the image is about to be pulled. Unless it fails, one of pulled, failed and
// unknown must follow.
func (a *Access) pulling(ctx context.Context, name string) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.records.RecordPullIntent(klog.FromContext(ctx), canonical(name)); err != nil {
		return fmt.Errorf("recording that image %q is being pulled, without which it would be anybody's: %w", name, err)
	}
	// The runtime stores images durably, and one without a record is for all. From here on the
	// intent or a record survives a loss of power: file systems keep the order in which names come
	// and go.
	if err := syncDir(a.intents); err != nil {
		a.records.RecordImagePullFailed(ctx, canonical(name))
		return fmt.Errorf("recording that image %q is being pulled: %w", name, err)
	}
	a.running++
	a.begun++
	return nil
}

// pulled records the end of a pull: the ID of the image and the credentials that the
// registry accepted, nil if it asked for none.
func (a *Access) pulled(ctx context.Context, name, id string, with *credentialprovider.TrackedAuthConfig) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	credentials := recorded(with)
	a.records.RecordImagePulled(ctx, canonical(name), id, &credentials)
}

// failed records the end of a pull that failed. id is the image that it left nevertheless, which is
// for nobody who does not pull it again; "" if it left none.
func (a *Access) failed(ctx context.Context, name, id string) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	if id != "" {
		log := klog.FromContext(ctx)
		if err := recordInterrupted(log, a.files, canonical(name), id); err != nil {
			log.Error(err, "An image stays locked until it is pulled or the kubelet restarts", "image", name)
			return // the intent stays
		}
	}
	a.records.RecordImagePullFailed(ctx, canonical(name))
}

// unknown is the end of a pull of which is not known what it left. Its intent stays, which forbids
// the image to all who have no record, until the next start settles it.
func (a *Access) unknown() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
}

// prune forgets the images that the node no longer has. list returns the IDs of
// those that it has. A pull that overlaps may bring back one that was not in the
// list, so nothing is forgotten then.
func (a *Access) prune(ctx context.Context, list func() ([]string, error)) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	running, begun := a.running, a.begun
	a.mu.Unlock()
	if running > 0 {
		return nil
	}
	before := time.Now()
	ids, err := list()
	if err != nil {
		return err
	}
	a.mu.Lock() // holds back pulls that begin now
	defer a.mu.Unlock()
	if a.begun == begun {
		a.records.PruneUnknownRecords(ctx, ids, before)
	}
	return nil
}

// recorded is what is kept of credentials: where they are from and their hash.
// Without credentials, or with the node's own, an image is for all Pods.
func recorded(c *credentialprovider.TrackedAuthConfig) kubeletconfig.ImagePullCredentials {
	switch {
	case c == nil || c.Source == nil:
		return kubeletconfig.ImagePullCredentials{NodePodsAccessible: true}
	case c.Source.Secret != nil:
		s := c.Source.Secret
		return kubeletconfig.ImagePullCredentials{KubernetesSecrets: []kubeletconfig.ImagePullSecret{
			{UID: s.UID, Namespace: s.Namespace, Name: s.Name, CredentialHash: c.AuthConfigHash},
		}}
	case c.Source.ServiceAccount != nil:
		s := c.Source.ServiceAccount
		return kubeletconfig.ImagePullCredentials{KubernetesServiceAccounts: []kubeletconfig.ImagePullServiceAccount{
			{UID: s.UID, Namespace: s.Namespace, Name: s.Name},
		}}
	}
	return kubeletconfig.ImagePullCredentials{}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening a directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("writing %s to disk: %w", dir, err)
	}
	return nil
}
